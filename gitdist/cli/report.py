"""``gitdist report``: write the report of studies and campaigns, and print its table of methods."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gitdist.address import without_secrets
from gitdist.cli.console import print_line
from gitdist.cli.errors import error_message
from gitdist.cli.studies import stored_plan, stored_study
from gitdist.errors import SpecError, StoreError, StudyError
from gitdist.report.comparison import compare
from gitdist.report.findings import counted
from gitdist.report.metrics import METRICS
from gitdist.report.page import write_report
from gitdist.report.records import ReportedStudy, read_study
from gitdist.report.tables import format_cell, method_table
from gitdist.spec.campaign import Campaign, Member
from gitdist.store import content_key
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results
from gitdist.study.monitoring.mlflow.sync import log_report
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from gitdist.study.study import Study

_MAX_NAMED = 3  # studies in the name of a directory
_DIGITS = 6  # there, of the hash of all names
_COMPARED = ("balanced_accuracy", "few_accuracy", "many_ekld", "few_ekld")  # on the terminal


def report_studies(names: Sequence[str], results: Results, out: Path | None, console: Console) -> None:
    """Write the report of studies, print its path, and log it to the studies' MLflow runs.

    Args:
        names: studies by name or file, and campaigns by name; at least one.
        results: the results directory, or the results on an object store.
        out: the report's directory; None = RESULTS/STUDY/report, for several studies RESULTS/report-A-B-HASH.
        console: where to print.
    """
    plans = [stored_plan(name, results) for name in dict.fromkeys(names)]
    records: dict[StudyPaths, ReportedStudy] = {}
    for plan in plans:
        members = plan.members if isinstance(plan, Campaign) else (Member(labels={"study": plan.name}, spec=plan),)
        for member in members:
            try:
                paths, record = read_stored(member, results)
            except (StudyError, StoreError) as error:
                if not isinstance(plan, Campaign):
                    raise
                print_line(console, f"skipped: {error_message(error)}")
            else:
                records.setdefault(paths, record)
    titles = [plan.title or plan.name for plan in plans]
    directory = out or results.directory / _default_directory([plan.name for plan in plans])
    try:
        files = write_report("; ".join(titles), list(records.values()), directory)
    except StoreError as error:
        raise type(error)(f"{error}; or choose another directory with --out DIR") from error
    page = str(files[0])
    if out is None:
        results.push(*files)
        page = results.describe(page)
    for record in records.values():
        for note in record.notes:
            print_line(console, f"{record.spec.name}: {note}")
    print_line(console, f"report of {counted(len(records), 'study', 'studies')}: {page}")
    _log(records, directory, files, console)


def comparison_tables(members: Sequence[Member], results: Results) -> Iterator[Table]:
    """Return one table per data set: the settings of finished studies, with mean and half of the 95 % interval."""
    finished = [member for member in members if StudyPaths.at(results, member.spec.name).summary.exists()]
    for comparison in compare([read_stored(member, results)[1] for member in finished]):
        full = method_table(comparison)
        wanted = [METRICS[name].label(comparison.ekld_under) for name in _COMPARED]
        columns = [0, 1, *(full.columns.index(name) for name in wanted if name in full.columns)]
        table = Table(title=escape(full.caption), title_justify="left", title_style="bold")
        for column in columns:
            table.add_column(escape(full.columns[column]), justify="left" if column == 0 else "right")
        for row in full.rows:
            table.add_row(*(escape(format_cell(row[column])) for column in columns))
        yield table


def read_stored(member: Member, results: Results) -> tuple[StudyPaths, ReportedStudy]:
    """Return the paths of a started study, and its record, read from its files and ledger."""
    paths, spec = stored_study(member.spec.name, results)
    with Study.open(paths, spec) as study:
        return paths, read_study(study, member.labels)


def _default_directory(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]}/report"
    more = [f"and-{len(names) - _MAX_NAMED}-more"] if len(names) > _MAX_NAMED else []
    whole = content_key("report", {"names": list(names)})[:_DIGITS]
    return "-".join(["report", *names[:_MAX_NAMED], *more, whole])


def _log(records: Mapping[StudyPaths, ReportedStudy], directory: Path, files: Sequence[Path], console: Console) -> None:
    """Log the page to each study's run and the other files to the first one; report an unusable store once."""
    unusable: set[str] = set()
    logged = 0
    for paths, record in records.items():
        uri = ""
        try:
            uri = tracking_uri(paths, record.spec.tracking.uri)
            if uri in unusable:
                continue
            logged += log_report(paths, uri, directory, files[:1] if logged else files)
        except (StoreError, StudyError, SpecError) as error:
            unusable.add(uri)
            print_line(console, f"the report is not in MLflow: {error_message(error)}")
    if logged:
        uris = {tracking_uri(paths, record.spec.tracking.uri) for paths, record in records.items()} - unusable
        addresses = ", ".join(map(without_secrets, sorted(uris)))
        print_line(console, f"logged to {counted(logged, 'run')} of MLflow at {addresses}")
