"""A per-class measure against class size, one line a setting: the paper's Figures 1 and 3 for eKLD."""

import numpy as np
from matplotlib.figure import Figure

from gitdist.report.figures.style import Drawn, add_legend, new_axes, size_axis, style_of
from gitdist.report.grouping import Panel
from gitdist.report.metrics import METRICS
from gitdist.report.size_curves import size_curve


def class_size_figure(panel: Panel, measure: str) -> Figure | None:
    """Return the figure of eKLD or consistency against class size; None where it was not measured.

    Args:
        panel: the settings to show.
        measure: ``ekld`` or ``consistency``.
    """
    curves = [(line, curve) for line in panel.lines if (curve := size_curve(line, measure, panel.split))]
    if not curves or len(curves[0][1].sizes) < 2:
        return None
    figure, (axis,) = new_axes(panel.title, height=3.2 + 0.2 * len(curves))
    shade = 0.3 / (1 + len(curves) // 2)
    drawn: list[Drawn] = []
    for line, curve in curves:
        style = style_of(line.index)
        means = np.array([value.mean for value in curve.values])
        halves = np.array([np.nan if value.half is None else value.half for value in curve.values])
        drawn += axis.plot(
            curve.sizes, means, color=style.color, marker=style.marker, linestyle=style.linestyle, label=line.label
        )
        axis.fill_between(curve.sizes, means - halves, means + halves, color=style.color, alpha=shade, linewidth=0)
    size_axis(axis, min(curves[0][1].sizes), max(curves[0][1].sizes))
    axis.set_xlabel("class size (training images)")
    axis.set_ylabel(METRICS[measure].axis(panel.ekld_under))
    largest = max(value.mean for _, curve in curves for value in curve.values)
    axis.set_ylim(0, 1.02 if measure == "consistency" else 1.5 * largest or None)
    add_legend(figure, drawn)
    return figure
