"""Accuracy of each class, the settings side by side, the largest class first."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

from gitdist.report.comparison import Comparison, Report, Setting
from gitdist.report.figures.hover import add_hover, mean_text, set_hover
from gitdist.report.figures.style import PAPER, SMALL, Drawn, Picture, add_legend, can_draw, new_axes, plain, style_of
from gitdist.report.findings import evidence
from gitdist.report.records import ClassInfo
from gitdist.report.statistics import Interval, interval

_MAX_BARS = 20  # classes; for more, each setting is a point
_MAX_NAMES = 60  # classes; for more, every fifth is named
_NAME, _END = 18, 6  # characters, and those kept of the end of a longer name, where numbers are
_HATCHES = ("", "///", "...", "xx", "\\\\\\", "++", "oo")


def per_class_figures(report: Report) -> Iterator[Picture]:
    """Yield per-class accuracy for each comparison, unless a class has another size in another version."""
    for comparison in report.comparisons:
        settings = [each for each in comparison.settings if each.measured("accuracy", comparison.split)]
        classes, *others = (each.classes for setting in comparison.settings for each in setting.replicates)
        if settings and len(classes.sizes) >= 2 and all(np.array_equal(other.sizes, classes.sizes) for other in others):
            caption = f"Accuracy of each class, the largest class first. {evidence(comparison)}"
            yield Picture(f"accuracy-per-class-{comparison.slug}", caption, _draw(comparison, settings, classes))


def _draw(comparison: Comparison, settings: Sequence[Setting], classes: ClassInfo) -> Figure:
    num_classes = len(classes.sizes)
    order = np.argsort(-classes.sizes, kind="stable")
    bars = num_classes <= _MAX_BARS
    row = 0.09 * len(settings) + 0.12 if bars else 0.17 if num_classes <= _MAX_NAMES else 0.08
    figure, (axis,) = new_axes(comparison.title, height=1.3 + 0.2 * len(settings) + row * num_classes)
    names = [f"{_name(classes, int(index))} ({classes.sizes[index]:,})" for index in order]
    drawn: list[Drawn] = []
    for index, setting in enumerate(settings):
        measured = setting.measured("accuracy", comparison.split)
        table = np.array([each.trial.splits[comparison.split].per_class["accuracy"] for each in measured])
        values = [interval(column) for column in table.T[order]]
        texts = [
            f"{setting.label}, {classes.names[index]} ({classes.sizes[index]:,}): accuracy {mean_text(value)}"
            for index, value in zip(order, values, strict=True)
        ]
        if bars:
            height = 0.8 / len(settings)
            container = _draw_bars(axis, setting, values, height, (index - (len(settings) - 1) / 2) * height)
            for bar, text, value in zip(container, texts, values, strict=True):
                if np.isfinite(value.mean):  # otherwise the class has no images in this split
                    set_hover(bar, text)
            drawn.append(container)
        else:
            style = style_of(setting.index) | {"linestyle": "none", "markersize": 4.5}
            means = [value.mean for value in values]
            drawn += axis.plot(means, range(num_classes), **style, label=setting.label)
            add_hover(axis, means, range(num_classes), texts)
    step = 1 if num_classes <= _MAX_NAMES else 5
    axis.set_yticks(range(0, num_classes, step), names[::step], fontsize=SMALL)
    axis.set_ylim(num_classes - 0.4, -0.6)
    axis.set_xlim(0, 1.02)
    axis.grid(visible=not bars, axis="y")
    axis.set_xlabel("accuracy (0..1)")
    axis.set_ylabel("class (training images)")
    add_legend(figure, drawn)
    return figure


def _draw_bars(axis: Axes, setting: Setting, values: Sequence[Interval], height: float, offset: float) -> BarContainer:
    halves = [value.half_width or 0.0 for value in values]
    return axis.barh(
        np.arange(len(values)) + offset,
        [value.mean for value in values],
        height * 0.92,
        xerr=halves if any(halves) else None,
        error_kw={"linewidth": 0.8},
        color=style_of(setting.index)["color"],
        hatch=_HATCHES[setting.index % len(_HATCHES)],
        edgecolor=PAPER,
        linewidth=0,
        label=setting.label,
    )


def _name(classes: ClassInfo, index: int) -> str:
    name = classes.names[index] if can_draw(classes.names[index]) else f"class {index}"
    return plain(name if len(name) <= _NAME else f"{name[: _NAME - _END - 1]}…{name[-_END:]}")
