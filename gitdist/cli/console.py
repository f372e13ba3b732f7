"""Prints for commands: lines without wrapping or markup, and tables without borders."""

from typing import Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from gitdist.errors import one_line

_LIST_COLUMNS = 60  # terminals that are no wider show a list
_UNBOUNDED = 10_000  # columns


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print a line without wrapping or markup; what cannot be printed in one is escaped."""
    console.print(one_line(text), style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_table(console: Console, table: Table) -> None:
    """Print a table; as a list on a narrow terminal, or if a word of a cell would be cut."""
    options = console.options.update(width=_UNBOUNDED)
    if console.width > _LIST_COLUMNS and Measurement.get(console, options, table).minimum <= console.width:
        console.print(table)
        return
    if table.title:
        console.print(table.title, style="bold", highlight=False)
    headers = [" ".join(str(column.header).split()) for column in table.columns]
    for first, *cells in zip(*(column.cells for column in table.columns), strict=True):
        pairs = (f"{header} {cell}" for header, cell in zip(headers[1:], cells, strict=True))
        console.print(f"{first}: {', '.join(pairs)}", highlight=False)
    if table.caption:
        console.print(table.caption, style="dim", highlight=False)


def plain_table(*headers: str, right: tuple[str, ...] = (), whole: tuple[str, ...] = (), space: int = 2) -> Table:
    """Return a table without borders; long cells are folded.

    Args:
        headers: of its columns.
        right: columns that are aligned right.
        whole: columns whose cells are not folded.
        space: characters between two columns.
    """
    table = Table(box=None, padding=(0, space, 0, 0))
    for header in headers:
        justify: Literal["left", "right"] = "right" if header in right else "left"
        width = max(map(len, header.split()), default=0)
        table.add_column(header, justify=justify, overflow="fold", no_wrap=header in whole, min_width=width)
    return table
