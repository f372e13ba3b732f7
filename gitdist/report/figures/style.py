"""How all figures look, and the files they become.

Colours, markers and line styles differ in grey print too. Text and axes have one colour, and their background another,
so that the page can replace both by its own. A figure is as wide as a phone's page, where its text has the size set
here.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from textwrap import wrap
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

from gitdist.report.figures.hover import set_hover, with_titles

INK, PAPER = "#010203", "#fefdfc"
WIDTH = 4.2  # inches
TEXT, SMALL = 10.5, 9.5  # points

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)  # Okabe and Ito 2008
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
_LINE_STYLES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
_DPI, _MAX_WIDTH = 200, 1160  # of a PNG: pixels per inch, and pixels
_FONT = "DejaVu Sans"  # comes with matplotlib
_INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "legend.labelcolor")
_RULES: Any = {**dict.fromkeys(_INKED, INK), "font.size": TEXT, "axes.titlesize": TEXT, "font.family": _FONT}

_LEGEND, _WRAPPED = 42, 0.16  # characters of a line of a legend, and inches that another line adds
_TRUETYPE = 42  # embedded fonts that journals accept: text can be selected and edited

Drawn = Artist | Container
"""What has a label: a line, or bars with their error bars."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, or a PNG file's content, with its file name and caption; ``phone`` is shown on narrow pages."""

    name: str
    caption: str
    figure: Figure | bytes
    phone: "Picture | None" = None

    def png(self) -> bytes:
        """Return it as PNG on white."""
        if isinstance(self.figure, bytes):
            return self.figure
        content = io.BytesIO()
        dpi = min(_DPI, _MAX_WIDTH / self.figure.get_figwidth())
        self.figure.savefig(content, format="png", dpi=dpi, facecolor="white", pil_kwargs={"optimize": True})
        return content.getvalue()

    def pdf(self) -> bytes:
        """Return a figure as PDF without background, the same file each time."""
        assert isinstance(self.figure, Figure), "only a figure has vectors"
        content = io.BytesIO()
        undated = {"CreationDate": None, "Creator": None, "Producer": None}
        with matplotlib.rc_context({"pdf.fonttype": _TRUETYPE}):
            self.figure.savefig(content, format="pdf", transparent=True, metadata=undated)
        return content.getvalue()

    def svg(self) -> str | None:
        """Return it as SVG without background, the same text each time; None for a PNG file's content.

        Its marks show what ``add_hover`` and ``set_hover`` gave them.
        """
        if isinstance(self.figure, bytes):
            return None
        content = io.BytesIO()
        # The name makes the ids in the SVG differ from those of other figures on one page.
        with matplotlib.rc_context({"svg.hashsalt": self.name, "svg.fonttype": "path"}):
            self.figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return with_titles(content.getvalue().decode())


def style_of(index: int) -> dict[str, Any]:
    """Return colour, marker and line style of the setting with this index; the first 35 differ from each other."""
    values = {"color": _COLOURS, "marker": _MARKERS, "linestyle": _LINE_STYLES}
    return {name: choices[index % len(choices)] for name, choices in values.items()}


def new_axes(title: str = "", height: float = 3.3, rows: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure of the common width and a height in inches, with ``rows`` axes below each other."""
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


def draw_bars(axis: Axes, values: Sequence[float], names: Sequence[str], texts: Sequence[str]) -> None:
    """Draw horizontal bars below each other with their names on the left and texts on the right."""
    rows = range(len(values))
    bars = axis.barh(rows, values, 0.65, color=_COLOURS[0])
    for row, value, name, text in zip(rows, values, names, texts, strict=True):
        set_hover(bars[row], f"{name}: {text}")
        axis.text(value, row, f" {text}", va="center", color=INK, fontsize=SMALL)
    axis.set_yticks(rows, list(names))
    axis.set_ylim(len(values) - 0.4, -0.6)
    axis.set_xlim(0, max([*values, 1e-9]) * 1.25)
    axis.grid(visible=False, axis="y")


def value_colours() -> ListedColormap:
    """Return the colours from low (dark) to high (light): cividis without its ends, which are too faint on paper."""
    return ListedColormap(matplotlib.colormaps["cividis"](np.linspace(0.1, 0.9, 256)))


def add_legend(figure: Figure, drawn: Sequence[Drawn]) -> None:
    """Put a legend below the figure if there are several labels.

    The handles are passed in because matplotlib skips labels that begin with an underscore when it collects them.
    """
    handles: list[Any] = list(drawn)  # matplotlib takes containers too, though its types do not say so
    labels = ["\n".join(wrap(plain(str(each.get_label())), _LEGEND)) for each in drawn]
    if len(labels) > 1:
        columns = 2 if max(map(len, labels)) <= 20 else 1
        figure.set_figheight(figure.get_figheight() + _WRAPPED * sum(label.count("\n") for label in labels))
        figure.legend(
            handles,
            labels,
            loc="outside lower left",
            ncols=columns,
            frameon=False,
            fontsize=SMALL,
            labelcolor=INK,
        )


def plain(text: str) -> str:
    """Return text that matplotlib draws literally: no mathematics, ? for a character that the font lacks."""
    return "".join(sign if can_draw(sign) else "?" for sign in text).replace("$", r"\$")


def can_draw(text: str) -> bool:
    """Tell whether the font has all characters of a text."""
    return all(ord(sign) in _font_characters() for sign in text)


def set_ticks(axis: Axis, values: Sequence[float], labels: Sequence[str] | None = None) -> None:
    """Give one of x and y these ticks and no others, labelled by their values if no labels are given."""
    axis.set_ticks(list(values), list(labels) if labels else [f"{value:,g}" for value in values])
    axis.set_ticks([], minor=True)


def round_numbers(low: float, high: float) -> list[float]:
    """Return up to six of 1, 2, 5, 10, 20, ... between ``low`` and ``high``, for the ticks of a log axis."""
    powers = [10.0**power for power in range(-3, 9)]
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [step * power for power in powers for step in steps if low <= step * power <= high]
        if len(found) <= 6:
            return found
    return found


def inline_svg(svg: str, label: str) -> str:
    """Return an SVG as an element of a page in the page's own colours, with an escaped label for screen readers."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r'<g id="[^"]*"', "<g", element)
    element = element.replace(INK, "currentColor").replace(PAPER, "var(--paper)")
    return element.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


@cache
def _font_characters() -> frozenset[int]:
    return frozenset(FT2Font(findfont(_FONT)).get_charmap())
