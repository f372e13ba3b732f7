"""What a mark shows where the pointer rests on it: trial, setting and value, as titles in the SVG.

matplotlib writes the link of each mark into an SVG, so a link carries the text until ``with_titles``. In PNG and PDF
nothing of it is seen.
"""

import re
from collections.abc import Iterable

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes

from gitdist.report.comparison import setting_label
from gitdist.report.metrics import SHARE, metric_of
from gitdist.report.records import ReportedStudy, ReportedTrial
from gitdist.report.statistics import Interval

_PREFIX = "hover:"
_AREA, _ON_TOP = 60.0, 10  # square points; order of drawing


def add_hover(axis: Axes, x: Iterable[float], y: Iterable[float], texts: Iterable[str]) -> None:
    """Let each finite point show its text under the pointer; nothing is drawn."""
    found = [each for each in zip(x, y, texts, strict=True) if np.isfinite(each[0]) and np.isfinite(each[1])]
    if found:
        finite_x, finite_y, shown = zip(*found, strict=True)
        points = axis.scatter(finite_x, finite_y, marker="s", s=_AREA, color="none", linewidth=0, zorder=_ON_TOP)
        points.set_urls([_PREFIX + text for text in shown])


def set_hover(artist: Artist, text: str) -> None:
    """Let a bar or a line show a text under the pointer."""
    artist.set_url(_PREFIX + text)


def with_titles(svg: str) -> str:
    """Return an SVG of matplotlib with the texts of its marks as titles."""
    titled = re.sub(rf'<a xlink:href="{_PREFIX}([^"]*)"[^>]*>', r'<g pointer-events="all"><title>\1</title>', svg)
    return titled.replace("</a>", "</g>")


def trial_text(study: ReportedStudy, trial: ReportedTrial, value: float | None = None) -> str:
    """Return a trial with its setting, and with a value of the first objective if given."""
    name = "baseline" if trial.trial.number is None else f"trial {trial.trial.number}"
    text = f"{name}: {setting_label(trial.params)}" if trial.params else name
    return text if value is None else f"{text}; {value_text(study.objective, value)}"


def value_text(name: str, value: float | Interval) -> str:
    """Return a metric's title with its value or mean, and the unit."""
    metric = metric_of(name)
    shown = mean_text(value) if isinstance(value, Interval) else f"{value:.4g}"
    return f"{metric.title} {shown}" + ("" if metric.unit == SHARE else f" {metric.unit}")


def mean_text(mean: Interval) -> str:
    """Return a mean with half of its interval and the number of replicates, if there are several."""
    half = "" if mean.half_width is None else f" ± {mean.half_width:.2g}"
    return f"{mean.mean:.4g}{half}" + (f" ({mean.n} replicates)" if mean.n > 1 else "")
