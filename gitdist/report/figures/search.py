"""How the objectives of a search depend on its fields: slices, importance, parallel coordinates, contours."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from gitdist.report.comparison import Report, field_title
from gitdist.report.figures.hover import add_hover, set_hover, trial_text, value_text
from gitdist.report.figures.style import (
    INK,
    PAPER,
    SMALL,
    Picture,
    draw_bars,
    new_axes,
    plain,
    round_numbers,
    set_ticks,
    value_colours,
)
from gitdist.report.findings import ENOUGH_TRIALS, counted
from gitdist.report.metrics import metric_of
from gitdist.report.records import ReportedStudy, ReportedTrial
from gitdist.spec import Dimension
from gitdist.study.ledger.space import field_importances
from gitdist.study.trial_status import format_value

_MANY = 60  # trials: with more, points are small, and the lines of most trials are faint
_LINE = 51  # characters that fit beside each other
_STRIP = 0.7  # height of a row of trials, as a share of the distance of rows
_CHOICE = 20  # characters
_BOX = {"facecolor": PAPER, "linewidth": 0, "pad": 1.5}
_LABEL: dict[str, Any] = {"color": INK, "fontsize": SMALL, "bbox": _BOX, "zorder": 5}


def slice_figures(report: Report) -> Iterator[Picture]:
    """Yield each objective against each field with several values: a point per trial, a row per choice."""
    searches = [study for study in report.compared_studies if not study.compares_methods]
    for study in searches:
        for name in study.spec.search.objectives:
            metric = metric_of(name.removeprefix("val/"))
            for field in study.varied_fields:
                values = {
                    trial: value
                    for trial in study.finished
                    if field in trial.params and (value := trial.metric("validation", metric.name)) is not None
                }
                if len({repr(trial.params[field]) for trial in values}) > 1:
                    dimension = study.spec.search.space[field]
                    draw = _draw_strips if dimension.bounds is None else _draw_slice
                    caption = f"{metric.title_under(study.spec.ekld_under)} against {field_title(field)}"
                    caption = f"{caption}; later trials are lighter, star = best"
                    figure = draw(study, field, metric.label(study.spec.ekld_under), values)
                    kind = f"slice-{metric.name}-{field}".replace("_", "-")
                    yield _picture(kind, study, caption, figure)


def importance_figures(report: Report) -> Iterator[Picture]:
    """Yield the importance of the searched fields, for at least ``ENOUGH_TRIALS`` and two fields."""
    for study in report.searched_studies:
        values, fields = study.objective_values, study.varied_fields
        if len(values) >= ENOUGH_TRIALS and len(fields) >= 2:
            trials = ((trial.params, value) for trial, value in values.items())
            shares = field_importances(study.spec.search, fields, trials)
            figure, (axis,) = new_axes(study.spec.name, height=1.2 + 0.4 * len(shares))
            draw_bars(axis, list(shares.values()), list(shares), [f"{share:.2f}" for share in shares.values()])
            axis.set_xlabel("share of importance (sum 1)")
            caption = "importance of the searched fields for {} (PED-ANOVA); a hint, not a test"
            yield _picture("importance", study, caption, figure)


def parallel_figures(report: Report) -> Iterator[Picture]:
    """Yield parallel coordinates, one axis below the other, for at least four trials and two fields."""
    for study in report.searched_studies:
        fields = study.varied_fields
        values = {trial: value for trial, value in study.objective_values.items() if trial.params.keys() >= {*fields}}
        if len(values) >= 4 and len(fields) >= 2:
            caption = "each line is a trial, coloured by {} (dark = low, light = high), dashed = best"
            caption += "; all but the best tenth are faint" if len(values) > _MANY else ""
            yield _picture("parallel", study, caption, _draw_parallel(study, values, fields))


def surface_figures(report: Report) -> Iterator[Picture]:
    """Yield contours of the objective over the first two searched ranges, for at least ``ENOUGH_TRIALS``.

    Points on one line have no contours. Of several trials at one point, the mean is shown; between the points it is
    interpolated linearly.
    """
    for study in report.searched_studies:
        fields = [name for name in study.varied_fields if study.spec.search.space[name].bounds is not None][:2]
        values: dict[tuple[float, ...], list[float]] = {}
        for trial, value in study.objective_values.items():
            if trial.params.keys() >= {*fields}:
                values.setdefault(tuple(float(trial.params[name]) for name in fields), []).append(value)
        means = {point: float(np.mean(found)) for point, found in values.items()}
        if len(fields) == 2 and len(study.objective_values) >= ENOUGH_TRIALS and len(set(means.values())) > 1:
            figure = _draw_surface(study, means, fields)
            if figure is not None:
                caption = "{} over two searched fields, interpolated between the trials (points)"
                yield _picture("surface", study, caption, figure)


def _picture(kind: str, study: ReportedStudy, caption: str, figure: Figure) -> Picture:
    caption = caption.format(metric_of(study.objective).title)
    trials = counted(len(study.finished), "finished trial")
    return Picture(f"{kind}-{study.spec.name}", f"{study.spec.name}: {caption}; validation split, {trials}.", figure)


def _position(dimension: Dimension, value: Any) -> float:
    """Return where a value lies in its dimension, 0..1: choices evenly spaced, a log range by logarithm."""
    if dimension.bounds is None:
        return dimension.extremes.index(value) / max(1, len(dimension.extremes) - 1)
    low, high = dimension.bounds
    if dimension.log:
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float((value - low) / (high - low))


def _draw_slice(study: ReportedStudy, field: str, label: str, values: Mapping[ReportedTrial, float]) -> Figure:
    figure, (axis,) = new_axes(study.spec.name)
    x = [float(trial.params[field]) for trial in values]
    _draw_trials(axis, study, values, x, list(values.values()))
    if study.spec.search.space[field].log:
        axis.set_xscale("log")
        set_ticks(axis.xaxis, round_numbers(min(x) / 1.2, max(x) * 1.2))
    axis.set_xlabel(field_title(field))
    axis.set_ylabel(label)
    return figure


def _draw_strips(study: ReportedStudy, field: str, label: str, values: Mapping[ReportedTrial, float]) -> Figure:
    """Draw a row per choice, in the order of the study; in it, trials are from above to below."""
    tried = [trial.params[field] for trial in values]
    choices = [choice for choice in study.spec.search.space[field].extremes if choice in tried]
    figure, (axis,) = new_axes(study.spec.name, height=1.2 + 0.4 * len(choices))
    y = []
    for index, choice in enumerate(tried):
        rank, count = tried[:index].count(choice), tried.count(choice)
        y.append(choices.index(choice) + _STRIP * ((rank + 0.5) / count - 0.5))
    _draw_trials(axis, study, values, list(values.values()), y)
    names = [format_value(choice) for choice in choices]
    short = [name if len(name) <= _CHOICE else name[: _CHOICE - 1] + "…" for name in names]
    axis.set_yticks(range(len(choices)), list(map(plain, short)))
    axis.set_ylim(len(choices) - 0.5, -0.5)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel(label)
    axis.set_ylabel(field_title(field))
    return figure


def _draw_trials(
    axis: Axes, study: ReportedStudy, values: Mapping[ReportedTrial, float], x: Sequence[float], y: Sequence[float]
) -> None:
    numbers = [trial.trial.number or 0 for trial in values]
    best = [number in study.best for number in numbers]
    order = Normalize(min(numbers), max(numbers))
    colours = np.asarray(value_colours()(order(numbers)))
    area = 30 if len(values) <= _MANY else 14
    axis.scatter(x, y, s=area, color=colours, edgecolors=INK, linewidths=0.4)
    chosen = [index for index, is_best in enumerate(best) if is_best]
    axis.scatter(
        [x[at] for at in chosen], [y[at] for at in chosen], s=110, marker="*", color=colours[chosen], edgecolors=INK
    )
    add_hover(axis, x, y, [trial_text(study, trial, value) for trial, value in values.items()])


def _draw_parallel(study: ReportedStudy, values: dict[ReportedTrial, float], fields: list[str]) -> Figure:
    space, low, high = study.spec.search.space, min(values.values()), max(values.values())
    norm = Normalize(low, high)
    figure, (axis,) = new_axes(study.spec.name, height=0.8 + 0.75 * (len(fields) + 1))
    sign = 1.0 if study.spec.search.directions[0] == "maximize" else -1.0
    ordered = sorted(values.items(), key=lambda item: (item[0].trial.number in study.best, sign * item[1]))
    num_faint = round(0.9 * len(values)) if len(values) > _MANY else 0
    for rank, (trial, value) in enumerate(ordered):
        best = trial.trial.number in study.best
        (line,) = axis.plot(
            [*(_position(space[name], trial.params[name]) for name in fields), float(norm(value))],
            range(len(fields) + 1),
            color=INK if best else value_colours()(norm(value)),
            linewidth=2.4 if best else 1.2,
            linestyle="--" if best else "-",
            alpha=0.12 if rank < num_faint and not best else 1.0,
        )
        set_hover(line, trial_text(study, trial, value))
    ticks = {
        field_title(name): {_position(space[name], value): format_value(value) for value in space[name].extremes}
        for name in fields
    }
    ticks[metric_of(study.objective).label(study.spec.ekld_under)] = {0.0: f"{low:.3f}", 1.0: f"{high:.3f}"}
    for row, (title, texts) in enumerate(ticks.items()):
        axis.axhline(row, color=INK, linewidth=0.8)
        axis.text(0, row - 0.14, plain(title), fontweight="bold", va="bottom", **_LABEL)
        length = max(4, _LINE // len(texts) - 1)
        for x, text in texts.items():
            side = "left" if x == 0 else "right" if x == 1 else "center"
            short = text if len(text) <= length else text[: length - 1] + "…"
            axis.plot([x], [row], marker="|", color=INK, markersize=8)
            axis.text(x, row + 0.14, plain(short), ha=side, va="top", **_LABEL)
    axis.set_ylim(len(ticks) - 0.5, -0.5)
    axis.set_xlim(-0.03, 1.03)
    axis.set_axis_off()
    return figure


def _draw_surface(study: ReportedStudy, means: dict[tuple[float, ...], float], fields: list[str]) -> Figure | None:
    space = study.spec.search.space
    positions = np.array(
        [[_position(space[name], x) for name, x in zip(fields, point, strict=True)] for point in means]
    )
    if np.linalg.matrix_rank(positions - positions.mean(0), tol=1e-9) < 2:
        return None
    figure, (axis,) = new_axes(study.spec.name, height=3.6)
    x, y = np.array(list(means)).T
    triangles = Triangulation(x, y, Triangulation(*positions.T).triangles)  # neighbours as they are drawn
    contours = axis.tricontourf(triangles, list(means.values()), levels=8, cmap=value_colours())
    label = metric_of(study.objective).label(study.spec.ekld_under)
    figure.colorbar(contours, ax=axis, label=label).ax.tick_params(colors=INK)
    axis.plot(x, y, linestyle="none", marker="o", markersize=4, color=INK, markeredgecolor=PAPER)
    names = [f"{fields[0]} {format_value(a)}, {fields[1]} {format_value(b)}" for a, b in means]
    add_hover(
        axis,
        x,
        y,
        [f"{name}; {value_text(study.objective, mean)}" for name, mean in zip(names, means.values(), strict=True)],
    )
    axis.set(xlabel=field_title(fields[0]), ylabel=field_title(fields[1]))
    if space[fields[0]].log:
        axis.set_xscale("log")
        set_ticks(axis.xaxis, round_numbers(x.min() / 1.2, x.max() * 1.2))
    if space[fields[1]].log:
        axis.set_yscale("log")
        set_ticks(axis.yaxis, round_numbers(y.min() / 1.2, y.max() * 1.2))
    return figure
