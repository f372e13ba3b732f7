"""``gitdist report``: the report of one or several studies, or of the studies of a campaign."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from gitdist.address import without_secrets
from gitdist.cli.studies import stored_plan, stored_study
from gitdist.errors import SpecError, StoreError, StudyError
from gitdist.report.findings import counted
from gitdist.report.page import write_report
from gitdist.report.records import ReportedStudy, read_study
from gitdist.spec.campaign import Campaign, Member
from gitdist.store import content_key
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results
from gitdist.study.monitoring.mlflow.sync import log_report
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from gitdist.study.study import Study

_MOST_NAMED = 3  # studies in the name of a directory
_DIGITS = 6  # there, of the hash of all names


def report_studies(names: Sequence[str], results: Results, out: Path | None, console: Console) -> None:
    """Write the report of studies, say where it is, and log it to the studies' MLflow runs.

    Args:
        names: studies by name or file, and campaigns by name; at least one.
        results: the results directory, or the results on an object store.
        out: where the report goes; None = RESULTS/STUDY/report, of several RESULTS/report-A-B-HASH.
        console: where to print.

    Raises:
        GitdistError: a study is not there or has nothing to show yet, or the report cannot be written.
    """
    plans = [stored_plan(name, results) for name in dict.fromkeys(names)]
    records: dict[StudyPaths, ReportedStudy] = {}
    for plan in plans:
        members = plan.members if isinstance(plan, Campaign) else (Member(labels={"study": plan.name}, spec=plan),)
        for member in members:
            try:
                paths, record = read_stored(member, results)
            except StudyError as error:
                if not isinstance(plan, Campaign):
                    raise
                _say(console, f"left out: {error}")
            else:
                records.setdefault(paths, record)
    titles = [plan.title or plan.name for plan in plans]
    place = out or results.directory / _directory([plan.name for plan in plans])
    try:
        files = write_report("; ".join(titles), list(records.values()), place)
    except StoreError as error:
        raise type(error)(f"{error}; or choose another directory with --out DIR") from error
    page = str(files[0])
    if out is None:
        results.push(*files)
        page = results.describe(page)
    for record in records.values():
        for note in record.notes:
            _say(console, f"{record.spec.name}: {note}")
    _say(console, f"report of {counted(len(records), 'study', 'studies')}: {page}")
    _log(records, place, files, console)


def read_stored(member: Member, results: Results) -> tuple[StudyPaths, ReportedStudy]:
    """Return the files of a study that has started, and what they and its ledger say of it.

    Raises:
        StudyError: it has not started, or its ledger cannot be read.
    """
    paths, spec = stored_study(member.spec.name, results)
    with Study.open(paths, spec) as study:
        return paths, read_study(study, member.labels)


def _directory(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]}/report"
    more = [f"and-{len(names) - _MOST_NAMED}-more"] if len(names) > _MOST_NAMED else []
    whole = content_key("report", {"names": list(names)})[:_DIGITS]
    return "-".join(["report", *names[:_MOST_NAMED], *more, whole])


def _log(records: Mapping[StudyPaths, ReportedStudy], place: Path, files: Sequence[Path], console: Console) -> None:
    """Log the page to each study's run and the other files to the first one; an unusable store is told of once."""
    unusable: set[str] = set()
    logged = 0
    for paths, record in records.items():
        uri = ""
        try:
            uri = tracking_uri(paths, record.spec.tracking.uri)
            if uri in unusable:
                continue
            logged += log_report(paths, uri, place, files[:1] if logged else files)
        except (StoreError, StudyError, SpecError) as error:
            unusable.add(uri)
            _say(console, f"the report is not in MLflow: {error}")
    if logged:
        uris = {tracking_uri(paths, record.spec.tracking.uri) for paths, record in records.items()} - unusable
        _say(
            console, f"logged to {counted(logged, 'run')} of MLflow at {', '.join(map(without_secrets, sorted(uris)))}"
        )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
