"""How all figures look: colours, markers and line styles that differ in grey print too, and the files they become.

Text and axes are drawn in one ink, and what lies under them on one paper, so that a page can give both its own colours.
A figure is about as wide as a phone's page, and its text is read at the size it was set in.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

from gitdist.report.metrics import NATS, Metric

INK, PAPER = "#010203", "#fefdfc"
WIDTH = 4.2  # inches
TEXT, SMALL = 10.5, 9.5  # points

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)  # Okabe and Ito 2008
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
_DPI = 200
_FONT = "DejaVu Sans"  # comes with matplotlib
_INKED = {
    name: INK
    for name in ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor")
}
_RULES: Any = {**_INKED, "font.size": TEXT, "axes.titlesize": TEXT, "font.family": _FONT}
Drawn = Artist | Container
"""What has a label: a line, or the parts of bars and error bars together."""

_GROUP_ID = re.compile(r'<g id="[^"]*"')


@dataclass(frozen=True)
class LineStyle:
    """How the line of one setting is drawn."""

    color: str
    marker: str
    linestyle: Any


def style_of(index: int) -> LineStyle:
    """Return the style of the setting with this number; the first 35 differ from each other."""
    return LineStyle(
        color=_COLOURS[index % len(_COLOURS)],
        marker=_MARKERS[index % len(_MARKERS)],
        linestyle=_DASHES[index % len(_DASHES)],
    )


def new_axes(title: str = "", height: float = 3.3, rows: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure of the common width with axes below each other.

    Args:
        title: above the first axes.
        height: of the figure, inches.
        rows: number of axes.
    """
    with matplotlib.rc_context(_RULES):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = [axis for (axis,) in figure.subplots(rows, 1, squeeze=False)]
        for axis in axes:
            axis.tick_params(labelsize=SMALL, which="both", colors=INK)
            axis.grid(color=INK, alpha=0.15, linewidth=0.6)
            axis.set_axisbelow(True)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_title(plain(title), loc="left", color=INK)
    return figure, axes


def scale_of_values() -> ListedColormap:
    """Return the colours from low (dark) to high (light): cividis without its ends, which no paper shows."""
    return ListedColormap(matplotlib.colormaps["cividis"](np.linspace(0.1, 0.9, 256)))


def add_legend(figure: Figure, drawn: Sequence[Drawn]) -> None:
    """Put the labels of what is drawn below the figure, in as many columns as have room; for a single one nothing.

    An axis cannot be asked for them: it keeps back labels that begin with an underscore.
    """
    handles: list[Any] = list(drawn)  # matplotlib takes containers too, though its types do not say so
    labels = [str(each.get_label()) for each in drawn]
    if len(labels) > 1:
        columns = 2 if max(map(len, labels)) <= 20 else 1
        figure.legend(
            handles,
            list(map(plain, labels)),
            loc="outside lower left",
            ncols=columns,
            frameon=False,
            fontsize=SMALL,
            labelcolor=INK,
        )


def plain(text: str) -> str:
    """Return text so that it is drawn as it stands: no mathematics, ? for a sign that the font has not."""
    return "".join(sign if ord(sign) in _font_signs() else "?" for sign in text).replace("$", r"\$")


def can_draw(text: str) -> bool:
    """Tell whether the font has all of a text's signs."""
    return all(ord(sign) in _font_signs() for sign in text)


def size_axis(axis: Axes, low: float, high: float) -> None:
    """Make x an axis of class sizes: logarithmic, with round numbers as ticks.

    Args:
        axis: whose x it is.
        low: smallest size shown.
        high: largest size shown.
    """
    axis.set_xscale("log")
    axis.set_xlim(low / 1.25, high * 1.25)
    set_ticks(axis.xaxis, round_numbers(low / 1.2, high * 1.2))


def keep_within(axis: Axes, metric: Metric) -> None:
    """Cut y off where the metric has no values: a wide interval may reach beyond."""
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, 0.0), high if metric.unit == NATS else min(high, 1.02))


def set_ticks(axis: Axis, values: Sequence[float], labels: Sequence[str] | None = None) -> None:
    """Give one of x and y these ticks and no others, labelled by their values where no labels are given."""
    axis.set_ticks(list(values), list(labels) if labels else [f"{value:,g}" for value in values])
    axis.set_ticks([], minor=True)


def round_numbers(low: float, high: float) -> list[float]:
    """Return three to six of 1, 2, 5, 10, 20, ... in a range; fewer where it has fewer."""
    powers = [10.0**power for power in range(-3, 9)]
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * power for power in powers for step in steps if low <= step * power <= high]
        if len(found) <= 6:
            return found
    return found


def png_bytes(figure: Figure) -> bytes:
    """Return the figure as PNG on white."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI, facecolor="white")
    return content.getvalue()


def svg_text(figure: Figure, name: str) -> str:
    """Return the figure as SVG without background; the same bytes each time.

    Args:
        figure: what to draw.
        name: makes the ids inside differ from those of other figures on one page.
    """
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return content.getvalue().decode()


def inline_svg(svg: str, label: str) -> str:
    """Return an SVG file's text as an element of a page, in the page's own text colour.

    Args:
        svg: the file's text.
        label: what the figure shows, escaped for HTML; screen readers say it.
    """
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = _GROUP_ID.sub("<g", element).replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    return element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


@cache
def _font_signs() -> frozenset[int]:
    return frozenset(FT2Font(findfont(_FONT)).get_charmap())
