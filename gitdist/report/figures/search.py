"""All trials of a search: parallel coordinates, and the objective over two searched fields."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from gitdist.report.figures.style import INK, SMALL, new_axes, plain
from gitdist.report.grouping import field_title
from gitdist.report.metrics import METRICS
from gitdist.report.records import SEED, StudyRecord
from gitdist.spec import Dimension
from gitdist.study.display import format_value

MIN_TRIALS = 4
MIN_SURFACE = 8  # trials, for a surface over two fields
_LABELS = 44  # characters that fit beside each other


def parallel_figure(study: StudyRecord) -> Figure | None:
    """Return the parallel coordinates of a study's finished trials, its axes lying: one a field, the objective last.

    None for fewer than four trials or fewer than two searched fields.

    Args:
        study: whose trials to show.
    """
    fields, metric = _fields(study), study.spec.search.objectives[0].removeprefix("val/")
    trials = [
        trial
        for trial in study.finished
        if metric in trial.measures["validation"].metrics and all(name in trial.params for name in fields)
    ]
    if len(trials) < MIN_TRIALS or len(fields) < 2:
        return None
    values = [trial.measures["validation"].metrics[metric] for trial in trials]
    colours, norm = _colours(), Normalize(min(values), max(values))
    figure, (axis,) = new_axes(study.spec.name, height=1.2 + 0.75 * (len(fields) + 1))
    order = np.argsort([-value if _lower_is_better(study) else value for value in values], kind="stable")
    for index in order:
        trial, is_best = trials[index], trials[index].trial.number in study.best
        places = [_coordinate(study.spec.search.space[name], trial.params[name]) for name in fields]
        axis.plot(
            [*places, float(norm(values[index]))],
            range(len(fields) + 1),
            color=INK if is_best else colours(norm(values[index])),
            linewidth=2.4 if is_best else 1.2,
            linestyle="--" if is_best else "-",
        )
    told = [(field_title(name), _ticks(study.spec.search.space[name])) for name in fields]
    told.append((METRICS[metric].title, {0.0: f"{min(values):.3f}", 1.0: f"{max(values):.3f}"}))
    _draw_axes(axis, told)
    return figure


def surface_figure(study: StudyRecord) -> Figure | None:
    """Return the objective over the two first searched fields that are ranges, from the finished trials.

    None for fewer than eight trials, fewer than two such fields, or trials on one line.

    Args:
        study: whose trials to show.
    """
    space, metric = study.spec.search.space, study.spec.search.objectives[0].removeprefix("val/")
    ranges = [name for name in _fields(study) if space[name].bounds is not None][:2]
    trials = [trial for trial in study.finished if all(name in trial.params for name in ranges)]
    if len(ranges) < 2 or len(trials) < MIN_SURFACE:
        return None
    x, y = (np.array([float(trial.params[name]) for trial in trials]) for name in ranges)
    places = np.stack([_coordinates(space[name], values) for name, values in zip(ranges, (x, y), strict=True)])
    if np.linalg.matrix_rank(places - places.mean(1, keepdims=True), tol=1e-9) < 2:
        return None
    values = np.array([trial.measures["validation"].metrics[metric] for trial in trials])
    figure, (axis,) = new_axes(study.spec.name, height=3.6)
    filled = axis.tricontourf(x, y, values, levels=8, cmap=_colours())
    figure.colorbar(filled, ax=axis, label=METRICS[metric].axis(study.ekld_under)).ax.tick_params(colors=INK)
    axis.plot(x, y, linestyle="none", marker="o", markersize=4, color=INK, markeredgecolor="white")
    for set_scale, name in ((axis.set_xscale, ranges[0]), (axis.set_yscale, ranges[1])):
        set_scale("log" if space[name].log else "linear")
    axis.set_xlabel(field_title(ranges[0]))
    axis.set_ylabel(field_title(ranges[1]))
    return figure


def _fields(study: StudyRecord) -> list[str]:
    varied = {name: {repr(trial.params.get(name)) for trial in study.finished} for name in study.spec.search.space}
    return [name for name, values in varied.items() if len(values) > 1 and name != SEED]


def _lower_is_better(study: StudyRecord) -> bool:
    return study.spec.search.directions[0] == "minimize"


def _colours() -> ListedColormap:
    return ListedColormap(matplotlib.colormaps["cividis"](np.linspace(0.1, 0.9, 256)))


def _coordinates(dimension: Dimension, values: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    return np.array([_coordinate(dimension, value) for value in values])


def _coordinate(dimension: Dimension, value: Any) -> float:
    """Return where a value lies between the ends of its dimension, 0..1."""
    if dimension.bounds is None:
        return dimension.extremes.index(value) / max(1, len(dimension.extremes) - 1)
    low, high = dimension.bounds
    if dimension.log:
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float((value - low) / (high - low))


def _ticks(dimension: Dimension) -> Mapping[float, str]:
    values = dimension.extremes
    room = max(4, _LABELS // len(values) - 1)
    told = [format_value(value) for value in values]
    return {
        _coordinate(dimension, value): text if len(text) <= room else text[: room - 1] + "…"
        for value, text in zip(values, told, strict=True)
    }


def _draw_axes(axis: Axes, told: Sequence[tuple[str, Mapping[float, str]]]) -> None:
    for place, (name, ticks) in enumerate(told):
        axis.axhline(place, color=INK, linewidth=0.8)
        axis.text(0, place - 0.12, name, color=INK, fontsize=SMALL, fontweight="bold", va="bottom")
        for at, text in ticks.items():
            side = "left" if at == 0 else "right" if at == 1 else "center"
            axis.plot([at], [place], marker="|", color=INK, markersize=8)
            axis.text(at, place + 0.12, plain(text), color=INK, fontsize=SMALL, ha=side, va="top")
    axis.set_ylim(len(told) - 0.4, -0.6)
    axis.set_xlim(-0.03, 1.03)
    axis.set_axis_off()
