"""All trials of a search as parallel coordinates: which values the good ones have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from gitdist.report.coordinates import coordinate, varied_fields
from gitdist.report.figures.style import INK, PAPER, SMALL, new_axes, plain, scale_of_values
from gitdist.report.grouping import field_title
from gitdist.report.metrics import METRICS
from gitdist.report.records import StudyRecord
from gitdist.spec import Dimension
from gitdist.study.monitoring.display import format_value

_MIN_TRIALS = 4
_LABELS = 51  # characters that fit beside each other
_LABEL: dict[str, Any] = {
    "color": INK,
    "fontsize": SMALL,
    "bbox": {"facecolor": PAPER, "linewidth": 0, "pad": 1.5},
    "zorder": 5,
}


def parallel_figure(study: StudyRecord) -> Figure | None:
    """Return the parallel coordinates of a study's finished trials, its axes lying: one a field, the objective last.

    Args:
        study: whose trials to show, those that have all of the fields.

    Returns:
        The figure; None for fewer than four trials or fewer than two searched fields.
    """
    fields, objective = varied_fields(study), study.objective
    trials = [trial for trial in study.finished if all(name in trial.params for name in fields)]
    values = [value for trial in trials if (value := trial.value("validation", objective)) is not None]
    if len(values) < _MIN_TRIALS or len(values) < len(trials) or len(fields) < 2:
        return None
    norm = Normalize(min(values), max(values))
    figure, (axis,) = new_axes(study.spec.name, height=0.8 + 0.75 * (len(fields) + 1))
    for trial, value in sorted(zip(trials, values, strict=True), key=lambda item: item[0].trial.number in study.best):
        places = [coordinate(study.spec.search.space[name], trial.params[name]) for name in fields]
        best = trial.trial.number in study.best
        axis.plot(
            [*places, float(norm(value))],
            range(len(fields) + 1),
            color=INK if best else scale_of_values()(norm(value)),
            linewidth=2.4 if best else 1.2,
            linestyle="--" if best else "-",
        )
    told = [(field_title(name), _ticks(study.spec.search.space[name])) for name in fields]
    ends = {0.0: f"{min(values):.3f}", 1.0: f"{max(values):.3f}"}
    _draw_axes(axis, [*told, (METRICS[objective].axis(study.spec.ekld_under), ends)])
    return figure


def _ticks(dimension: Dimension) -> Mapping[float, str]:
    values = dimension.extremes
    room = max(4, _LABELS // len(values) - 1)
    return {coordinate(dimension, value): _shortened(format_value(value), room) for value in values}


def _shortened(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"


def _draw_axes(axis: Axes, told: Sequence[tuple[str, Mapping[float, str]]]) -> None:
    for place, (name, ticks) in enumerate(told):
        axis.axhline(place, color=INK, linewidth=0.8)
        axis.text(0, place - 0.14, plain(name), fontweight="bold", va="bottom", **_LABEL)
        for at, text in ticks.items():
            side = "left" if np.isclose(at, 0) else "right" if np.isclose(at, 1) else "center"
            axis.plot([at], [place], marker="|", color=INK, markersize=8)
            axis.text(at, place + 0.14, plain(text), ha=side, va="top", **_LABEL)
    axis.set_ylim(len(told) - 0.5, -0.5)
    axis.set_xlim(-0.03, 1.03)
    axis.set_axis_off()
