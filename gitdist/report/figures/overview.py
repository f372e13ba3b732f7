"""The picture of a report: draws of the generator next to per-class eKLD against class size."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from gitdist.generator.grid import read_grid
from gitdist.report.comparison import Comparison, Report, Setting
from gitdist.report.figures.style import (
    INK,
    SMALL,
    WIDTH,
    Picture,
    can_draw,
    new_axes,
    plain,
    round_numbers,
    set_ticks,
    style_of,
)
from gitdist.report.findings import AUGMENTATION, counted, replication
from gitdist.report.metrics import METRICS
from gitdist.report.records import ClassInfo, ReportedStudy

_MAX_CURVES = 4
_MAX_ROWS, _MAX_DRAWS = 5, 4
_NAME = 12  # characters of a class name
_GAP, _MARGIN = 0.06, 0.2  # between cells, and after the first column, as a share of a cell


@dataclass(frozen=True, eq=False)
class _Draws:
    """Images of some classes and the generator's draws of each, RGB uint8 ``[R, 1 + N, H, W, 3]``."""

    cells: NDArray[np.uint8]
    names: tuple[str, ...]


def overview_figures(report: Report) -> Iterator[Picture]:
    """Yield the picture of each data set: draws, eKLD of at most four settings, or the one of both that there is."""
    for comparison in report.comparisons:
        draws = _read_draws(comparison.studies)
        curves = _chosen_settings(comparison)
        if draws is not None or curves:
            name = "overview" if len(report.comparisons) == 1 else f"overview-{comparison.slug}"
            caption = _caption(comparison, curves, draws)
            phone = None  # one panel is as narrow as other figures
            if draws is not None and curves:
                phone = Picture(f"{name}-phone", caption, _draw(comparison, curves, draws, wide=False))
            yield Picture(name, caption, _draw(comparison, curves, draws, wide=True), phone)


def _caption(comparison: Comparison, curves: Sequence[Setting], draws: _Draws | None) -> str:
    parts = [f"{comparison.title}."]
    if draws is not None:
        parts.append("Training images and what the generator draws from them.")
    if curves:
        title = METRICS["ekld"].title_under(comparison.ekld_under)
        parts.append(f"Per-class {title} against class size; 0 = invariant.")
        if len(curves) < len(comparison.settings):
            parts.append(f"{len(curves)} of {len(comparison.settings)} settings.")
        parts.append(replication(comparison))
        if all(len(one.replicates) == 1 for one in curves):
            confirmed = any(study.confirmations for study in comparison.studies)
            parts.append(f"One training per curve{', of the search, not of its confirmation' if confirmed else ''}.")
    return " ".join(parts)


def _chosen_settings(comparison: Comparison) -> list[Setting]:
    """Return the settings whose eKLD is drawn, in their order.

    If there are more than four: those without augmentation (if many, the counterpart of the next first), the best under
    the generator on validation, and one that has seen the true nuisance.
    """
    drawn = [one for one in comparison.settings if len(one.by_class_size("ekld", comparison.split)) > 1]
    if len(drawn) <= _MAX_CURVES:
        return drawn
    learned = [one for one in drawn if one.augmented and not one.sees_nuisance]
    search = comparison.studies[0].spec.search
    sign = -1.0 if search.directions[0] == "maximize" else 1.0
    objective = comparison.studies[0].objective
    means = {one: sign * mean.mean for one in learned if (mean := one.mean(objective, "validation"))}
    best = min(means, key=means.__getitem__) if means else drawn[0]
    plain_ones = [one for one in drawn if not one.augmented and not one.sees_nuisance]
    plain_ones.sort(key=lambda one: _rest_of_training(one) != _rest_of_training(best))
    bounds = [one for one in drawn if one.sees_nuisance][:1]
    chosen = [best, *bounds, *plain_ones[: _MAX_CURVES - 1 - len(bounds)]]
    return [one for one in drawn if one in chosen]


def _rest_of_training(setting: Setting) -> dict[str, object]:
    """Return all fields of the training but those of augmentation and seed."""
    first = setting.replicates[0]
    return first.study.spec.trial_of(first.trial.params).model_dump(exclude=AUGMENTATION)


def _read_draws(studies: Sequence[ReportedStudy]) -> _Draws | None:
    """Return draws of the first trained generator of which there are samples, of classes from large to small."""
    with_samples = [study for study in studies if study.samples is not None]
    with_samples.sort(key=lambda study: study.spec.generator.kind == "oracle")
    if not with_samples:
        return None
    study = with_samples[0]
    assert study.samples is not None
    with Image.open(io.BytesIO(study.samples)) as picture:
        cells = read_grid(np.asarray(picture.convert("RGB")))
    classes = next(trial.classes for trial in study.finished)
    if cells is None or classes is None:
        return None
    shown = np.linspace(0, len(classes.sizes) - 1, len(cells)).astype(np.int64)  # the classes of a large picture
    order = np.argsort(-classes.sizes[shown], kind="stable")
    rows = order[np.linspace(0, len(order) - 1, min(len(order), _MAX_ROWS)).astype(np.int64)]
    return _Draws(cells[rows, : 1 + _MAX_DRAWS], tuple(_name(classes, int(shown[row])) for row in rows))


def _name(classes: ClassInfo, index: int) -> str:
    name = classes.names[index] if can_draw(classes.names[index]) else f"class {index}"
    short = name if len(name) <= _NAME else name[: _NAME - 1] + "…"
    return f"{plain(short)}\n{counted(int(classes.sizes[index]), 'image')}"


def _draw(comparison: Comparison, curves: Sequence[Setting], draws: _Draws | None, wide: bool) -> Figure:
    both = draws is not None and bool(curves)
    figure, axes = new_axes(height=3.7, rows=2 if both else 1)
    if both and wide:
        figure.set_size_inches(2.05 * WIDTH, 3.7)
        columns = figure.add_gridspec(1, 2, width_ratios=(0.92, 1.08), wspace=0.06)
        for index, axis in enumerate(axes):
            axis.set_subplotspec(columns[index])
    elif both:
        figure.set_size_inches(WIDTH, 7.2)
    if draws is not None:
        _draw_images(axes[0], draws)
    if curves:
        _draw_curves(axes[-1], comparison, curves)
    return figure


def _draw_images(axis: Axes, draws: _Draws) -> None:
    num_rows, num_columns, height, width, _ = draws.cells.shape
    lefts = [column + (_MARGIN if column else 0.0) for column in range(num_columns)]
    for row, column in np.ndindex(num_rows, num_columns):
        extent = (lefts[column], lefts[column] + 1 - _GAP, row + 1 - _GAP, row)
        axis.imshow(draws.cells[row, column], extent=extent, interpolation="none", aspect=height / width)
    axis.set_title("Draws of the generator", loc="left", color=INK, fontweight="bold")
    axis.set_xticks([0.5 * (1 - _GAP), (1 + _MARGIN + num_columns + _MARGIN - _GAP) / 2], ["image", "draws from it"])
    axis.set_yticks(np.arange(num_rows) + 0.5 * (1 - _GAP), draws.names, linespacing=1.2)
    axis.tick_params(length=0)
    axis.set_xlim(0, num_columns + _MARGIN - _GAP)
    axis.set_ylim(num_rows - _GAP, 0)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)


def _draw_curves(axis: Axes, comparison: Comparison, curves: Sequence[Setting]) -> None:
    axis.set_title("eKLD by class size (0 = invariant)", loc="left", color=INK, fontweight="bold")
    largest, sizes = 0.0, list[int]()
    for setting in curves:
        curve = setting.by_class_size("ekld", comparison.split)
        sizes = list(curve)
        means = np.array([value.mean for value in curve.values()])
        halves = np.array([value.half_width for value in curve.values()], dtype=np.float64)  # None becomes NaN
        style = style_of(setting.index) | {"markersize": 6 if len(sizes) <= 20 else 3}
        axis.plot(sizes, means, **style, linewidth=2.0, label=plain(setting.label))
        axis.fill_between(sizes, means - halves, means + halves, color=style["color"], alpha=0.13, linewidth=0)
        largest = max(largest, float(means.max()))
    axis.set_xscale("log")
    axis.set_xlim(min(sizes) / 1.15, max(sizes) * 1.15)
    set_ticks(axis.xaxis, round_numbers(min(sizes) / 1.1, max(sizes) * 1.1))
    axis.set_ylim(0, 1.45 * largest or None)
    axis.set_xlabel("class size (training images)")
    axis.set_ylabel(METRICS["ekld"].label(comparison.ekld_under))
    axis.legend(loc="upper right", frameon=False, fontsize=SMALL, labelcolor=INK)
