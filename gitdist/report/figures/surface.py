"""The objective of a search over two of its fields."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from gitdist.report.coordinates import coordinate, varied_fields
from gitdist.report.figures.style import INK, PAPER, new_axes, round_numbers, scale_of_values, set_ticks
from gitdist.report.grouping import field_title
from gitdist.report.metrics import METRICS
from gitdist.report.records import StudyRecord

_MIN_POINTS = 8


def surface_figure(study: StudyRecord) -> Figure | None:
    """Return the objective over the first two searched fields that are ranges, flat triangles between the trials.

    Args:
        study: whose finished trials to show; of several at one point, their mean.

    Returns:
        The figure; None for fewer than eight points, fewer than two such fields, points on one line or equal values.
    """
    space = study.spec.search.space
    fields = [name for name in varied_fields(study) if space[name].bounds is not None][:2]
    at: dict[tuple[float, ...], list[float]] = {}
    for trial in study.finished:
        value = trial.value("validation", study.objective)
        if value is not None and all(name in trial.params for name in fields):
            at.setdefault(tuple(float(trial.params[name]) for name in fields), []).append(value)
    values = [float(np.mean(found)) for found in at.values()]
    if len(fields) < 2 or len(at) < _MIN_POINTS or min(values) == max(values):
        return None
    places = np.array([[coordinate(space[name], x) for name, x in zip(fields, point, strict=True)] for point in at])
    if np.linalg.matrix_rank(places - places.mean(0), tol=1e-9) < 2:
        return None
    figure, (axis,) = new_axes(study.spec.name, height=3.6)
    x, y = zip(*at, strict=True)
    between = Triangulation(x, y, Triangulation(*places.T).triangles)  # neighbours as they are drawn
    filled = axis.tricontourf(between, values, levels=8, cmap=scale_of_values())
    told = METRICS[study.objective].axis(study.spec.ekld_under)
    figure.colorbar(filled, ax=axis, label=told).ax.tick_params(colors=INK)
    axis.plot(x, y, linestyle="none", marker="o", markersize=4, color=INK, markeredgecolor=PAPER)
    for scale, part, name, line in (
        (axis.set_xscale, axis.xaxis, fields[0], x),
        (axis.set_yscale, axis.yaxis, fields[1], y),
    ):
        if space[name].log:
            scale("log")
            set_ticks(part, round_numbers(min(line) / 1.2, max(line) * 1.2))
    axis.set_xlabel(field_title(fields[0]))
    axis.set_ylabel(field_title(fields[1]))
    return figure
