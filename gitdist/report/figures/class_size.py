"""A per-class metric against class size, one line per setting: Figures 1 and 3 of the paper for eKLD."""

from collections.abc import Iterator

import numpy as np

from gitdist.report.comparison import Report
from gitdist.report.figures.hover import add_hover, value_text
from gitdist.report.figures.style import Drawn, Picture, add_legend, new_axes, round_numbers, set_ticks, style_of
from gitdist.report.findings import evidence
from gitdist.report.metrics import METRICS

_MAX_MARKERS = 20  # of a line; with more they would run into each other


def class_size_figures(report: Report, metric: str) -> Iterator[Picture]:
    """Yield the figure of ``ekld`` or ``consistency`` against class size for each comparison."""
    for comparison in report.comparisons:
        curves = [(one, curve) for one in comparison.settings if (curve := one.by_class_size(metric, comparison.split))]
        if not curves or len(curves[0][1]) < 2:
            continue
        figure, (axis,) = new_axes(comparison.title, height=3.2 + 0.2 * len(curves))
        drawn: list[Drawn] = []
        for setting, curve in curves:
            style, sizes = style_of(setting.index), list(curve)
            means = np.array([value.mean for value in curve.values()])
            halves = np.array([value.half_width for value in curve.values()], dtype=np.float64)  # None becomes NaN
            marked = slice(setting.index, None, -(-len(sizes) // _MAX_MARKERS))  # not the same sizes for all settings
            drawn += axis.plot(sizes, means, **style, markevery=marked, label=setting.label)
            texts = [f"{setting.label}, class size {size}; {value_text(metric, mean)}" for size, mean in curve.items()]
            add_hover(axis, sizes, means, texts)
            opacity = 0.3 / (1 + len(curves) // 2)
            axis.fill_between(sizes, means - halves, means + halves, color=style["color"], alpha=opacity, linewidth=0)
        low, high = min(curves[0][1]), max(curves[0][1])
        axis.set_xscale("log")
        axis.set_xlim(low / 1.25, high * 1.25)
        set_ticks(axis.xaxis, round_numbers(low / 1.2, high * 1.2))
        axis.set_xlabel("class size (training images)")
        axis.set_ylabel(METRICS[metric].label(comparison.ekld_under))
        largest = max(value.mean for _, curve in curves for value in curve.values())
        axis.set_ylim(0, 1.02 if metric == "consistency" else 1.5 * largest or None)
        add_legend(figure, drawn)
        title = METRICS[metric].title_under(comparison.ekld_under)
        caption = f"Per-class {title} against class size. {evidence(comparison)}"
        yield Picture(f"{metric}-by-class-size-{comparison.slug}", caption, figure)
