"""Accuracy of every class, the settings side by side, the largest class first."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gitdist.report.figures.style import PAPER, SMALL, Drawn, add_legend, can_draw, new_axes, plain, style_of
from gitdist.report.grouping import Line, Panel
from gitdist.report.records import Classes, Split
from gitdist.report.statistics import Interval, interval

_MOST_BARS = 20  # classes; of more, each setting is a point
_MOST_NAMES = 60  # classes; of more, only some are named
_NAME = 18  # characters


def per_class_figure(panel: Panel) -> Figure | None:
    """Return the figure of per-class accuracy; None where versions give one class several sizes, or there is one class.

    Args:
        panel: the settings to show.
    """
    classes = panel.classes
    same = all(np.array_equal(each.classes.sizes, classes.sizes) for line in panel.lines for each in line.replicates)
    num_classes = len(classes.sizes)
    if not same or num_classes < 2:
        return None
    order = np.argsort(-classes.sizes, kind="stable")
    bars = num_classes <= _MOST_BARS
    row = 0.09 * len(panel.lines) + 0.12 if bars else 0.17 if num_classes <= _MOST_NAMES else 0.08
    figure, (axis,) = new_axes(panel.title, height=1.3 + 0.2 * len(panel.lines) + row * num_classes)
    drawn: list[Drawn] = []
    for place, line in enumerate(panel.lines):
        reached = accuracies(line, panel.split)
        values = [reached[index] for index in order]
        if bars:
            height = 0.8 / len(panel.lines)
            drawn.append(_draw_bars(axis, line, values, height, place - (len(panel.lines) - 1) / 2))
        else:
            drawn.append(_draw_points(axis, line, values))
    step = 1 if num_classes <= _MOST_NAMES else 5
    names = [f"{_name(classes, int(index))} ({classes.sizes[index]:,})" for index in order]
    axis.set_yticks(range(0, num_classes, step), names[::step], fontsize=SMALL)
    axis.set_ylim(num_classes - 0.4, -0.6)
    axis.set_xlim(0, 1.02)
    axis.grid(visible=bars is False, axis="y")
    axis.set_xlabel("accuracy (0..1)")
    axis.set_ylabel("class (training images)")
    add_legend(figure, drawn)
    return figure


def accuracies(line: Line, split: Split) -> list[Interval]:
    """Return the accuracy of every class over the replicates of a setting."""
    table: NDArray[np.float64] = np.array(
        [each.trial.measures[split].per_class["accuracy"] for each in line.replicates]
    )
    return [interval(column) for column in table.T]


def _draw_bars(axis: Axes, line: Line, values: Sequence[Interval], height: float, place: float) -> Drawn:
    halves = [value.half or 0.0 for value in values]
    return axis.barh(
        np.arange(len(values)) + place * height,
        [value.mean for value in values],
        height * 0.92,
        xerr=halves if any(halves) else None,
        error_kw={"linewidth": 0.8},
        color=style_of(line.index).color,
        hatch=("", "///", "...", "xx", "\\\\\\", "++", "oo")[line.index % 7],
        edgecolor=PAPER,
        linewidth=0,
        label=line.label,
    )


def _draw_points(axis: Axes, line: Line, values: Sequence[Interval]) -> Drawn:
    style = style_of(line.index)
    (points,) = axis.plot(
        [value.mean for value in values],
        range(len(values)),
        color=style.color,
        marker=style.marker,
        markersize=4.5,
        linestyle="none",
        label=line.label,
    )
    return points


def _name(classes: Classes, index: int) -> str:
    name = classes.names[index] if can_draw(classes.names[index]) else f"class {index}"
    return plain(name if len(name) <= _NAME else name[: _NAME - 1] + "…")
