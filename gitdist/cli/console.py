"""Prints for commands: lines without wrapping or markup, and tables without borders."""

from rich.console import Console
from rich.table import Table

from gitdist.errors import one_line


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Print a line without wrapping or markup; what cannot be printed in one is escaped."""
    console.print(one_line(text), style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


def plain_table(*headers: str, right: tuple[str, ...] = ()) -> Table:
    """Return a table without borders; the columns ``right`` are aligned right, and long cells are folded."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in headers:
        table.add_column(header, justify="right" if header in right else "left", overflow="fold")
    return table
