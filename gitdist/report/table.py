"""A table of a report: raw numbers as CSV, readable ones as LaTeX."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gitdist.report.statistics import Interval

Cell = str | int | float | Interval | None

_DECIMALS = 4
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
    "±": r"$\pm$",
    "−": "$-$",
}


@dataclass(frozen=True, eq=False)
class Table:
    """A table: ``name`` is its file's, ``columns`` its header, ``rows`` as many cells each.

    A column that holds intervals has nothing else but None; in CSV it is three: mean, and both ends.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def csv(self) -> str:
        """Return the table with all digits; what is not there is empty."""
        wide = {place for row in self.rows for place, cell in enumerate(row) if isinstance(cell, Interval)}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        header = [
            [name, f"{name} low", f"{name} high"] if at in wide else [name] for at, name in enumerate(self.columns)
        ]
        writer.writerow([name for names in header for name in names])
        for row in self.rows:
            cells = [_three(cell) if at in wide else [_raw(cell)] for at, cell in enumerate(row)]
            writer.writerow([value for values in cells for value in values])
        return text.getvalue()

    def latex(self) -> str:
        """Return the table as a plain ``tabular``, which needs no package."""
        alignment = "".join("l" if self.is_text(place) else "r" for place in range(len(self.columns)))
        lines = [" & ".join(map(_latex, row)) + r" \\" for row in [self.columns, *map(self.shown, self.rows)]]
        body = [
            f"% {' '.join(self.caption.split())}",
            rf"\begin{{tabular}}{{{alignment}}}",
            r"\hline",
            lines[0],
            r"\hline",
        ]
        return "\n".join([*body, *lines[1:], r"\hline", r"\end{tabular}", ""])

    def shown(self, row: Sequence[Cell]) -> list[str]:
        """Return a row's cells for reading."""
        return [readable(cell) for cell in row]

    def is_text(self, place: int) -> bool:
        """Tell whether a column is read from the left: where any of its cells is text."""
        return any(isinstance(row[place], str) for row in self.rows)


def readable(cell: Cell) -> str:
    """Return a cell for reading: four decimals, one of 10 and more; a dash for nothing.

    Of an interval mean ± half, or mean [low, high] where it has limits.
    """
    if cell is None:
        return "–"
    if isinstance(cell, Interval):
        width = "" if cell.half is None else f" ± {cell.half:.{_DECIMALS}f}"
        if cell.ends and cell.limits:
            width = f" [{cell.ends[0]:.{_DECIMALS}f}, {cell.ends[1]:.{_DECIMALS}f}]"
        return f"{cell.mean:.{_DECIMALS}f}{width}".replace("-", "−")
    if isinstance(cell, float):
        decimals = _DECIMALS if abs(cell) < 10 else 1
        return f"{cell:,.{decimals}f}".replace("-", "−") if math.isfinite(cell) else "–"
    return f"{cell:,}" if isinstance(cell, int) else cell


def _raw(cell: Cell) -> str | int | float:
    if isinstance(cell, Interval):
        return cell.mean
    return "" if cell is None else cell


def _three(cell: Cell) -> list[str | int | float]:
    ends = cell.ends if isinstance(cell, Interval) else None
    return [_raw(cell), *(ends or ("", ""))]


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, "--" if sign == "–" else sign) for sign in text)
