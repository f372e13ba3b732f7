"""``gitdist data ls``: lists the data sources."""

from rich.console import Console
from rich.text import Text

from gitdist.cli.console import plain_table
from gitdist.data.sources import source_locations


def list_sources(console: Console) -> None:
    """Print where the files of each source are, or how to get them."""
    table = plain_table("source", "where")
    for name, where in source_locations().items():
        table.add_row(name, Text(where))
    console.print(table)
