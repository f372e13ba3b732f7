"""The methods of a study or campaign beside each other, on the terminal: what its report shows in full."""

from collections.abc import Iterator, Sequence

from rich.markup import escape
from rich.table import Table

from gitdist.cli.report import read_stored
from gitdist.report.comparison import compare
from gitdist.report.metrics import METRICS
from gitdist.report.tables import format_cell, method_table
from gitdist.spec.campaign import Member
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results

_SHOWN = ("balanced_accuracy", "few_accuracy", "many_ekld", "few_ekld")


def comparison_tables(members: Sequence[Member], results: Results) -> Iterator[Table]:
    """Return a table for each data set: the settings with mean and half of the 95 % interval over replicates.

    Args:
        members: the studies, of which those that are finished are read.
        results: the results directory, or the results on an object store.

    Raises:
        StudyError: a study's ledger cannot be read.
    """
    finished = [member for member in members if StudyPaths.at(results, member.spec.name).summary.exists()]
    for comparison in compare([read_stored(member, results)[1] for member in finished]):
        full = method_table(comparison)
        wanted = [METRICS[name].label(comparison.ekld_under) for name in _SHOWN]
        places = [0, 1, *(full.columns.index(name) for name in wanted if name in full.columns)]
        table = Table(title=escape(full.caption), title_justify="left", title_style="bold")
        for place in places:
            table.add_column(escape(full.columns[place]), justify="left" if place == 0 else "right")
        for row in full.rows:
            table.add_row(*(escape(format_cell(row[place])) for place in places))
        yield table
