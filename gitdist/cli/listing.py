"""What ``gitdist status`` and ``gitdist report`` show without a name: the studies and campaigns of the results."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gitdist.cli.completion import is_study
from gitdist.cli.console import plain_table, print_line, print_table
from gitdist.cli.status import status_of
from gitdist.errors import GitdistError, SpecError
from gitdist.study.campaign import load_campaign
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results
from gitdist.study.status import StudyStatus


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A study or a campaign of a results directory.

    ``finished`` counts finished trials, of a campaign finished studies, of ``total``. ``best`` has the objectives of
    the best trial by name; None if there is none, and for campaigns. ``at`` is the time of the last start or end of a
    trial.
    """

    name: str
    kind: str
    state: str
    finished: int
    total: int
    best: dict[str, float] | None
    at: str | None


def show_results(results: Results, console: Console, command: str, *, as_json: bool = False) -> None:
    """Print the studies and campaigns of a results directory, the newest last.

    Args:
        results: the directory.
        console: where to print.
        command: that shows one of them.
        as_json: print a list of ``Entry`` instead.

    Raises:
        SpecError: the results are on an object store.
    """
    if results.uri is not None:
        raise SpecError(f"name a study: those in {results} are not listed")
    entries = sorted(_entries(results), key=lambda entry: (entry.at or "", entry.name))
    if as_json:
        console.print_json(json.dumps([asdict(entry) for entry in entries]), indent=2)
        return
    if not entries:
        print_line(console, f"no study in {results} yet; `gitdist run STUDY.yaml` starts one, --results names another")
        return
    table = plain_table("name", "progress", "best", "when", whole=("name", "progress", "best", "when"))
    for entry in entries:
        counts = f"{entry.finished} of {entry.total} {'studies' if entry.kind == 'campaign' else 'trials'}"
        progress = counts if entry.state == "finished" else f"{counts}, {entry.state}" if entry.total else entry.state
        best = ", ".join(f"{value:.4f}" for value in (entry.best or {}).values()) or "-"
        table.add_row(entry.name, Text(progress), best, (entry.at or "-").replace("T", " ")[:16])
    print_table(console, table)
    print_line(console, f"show one with: gitdist {command} NAME --results {results}", style="dim")


def _entries(results: Results) -> Iterator[Entry]:
    folders = sorted(results.directory.iterdir()) if results.directory.is_dir() else []
    names = [folder.name for folder in folders if is_study(folder)]
    members: set[str] = set()
    for name in names:
        with suppress(GitdistError):  # a damaged one is reported below
            campaign = load_campaign(results, name)
            members |= {member.spec.name for member in campaign.members} if campaign else set()
    for name in names:
        if name not in members:
            yield _entry(name, results)


def _entry(name: str, results: Results) -> Entry:
    try:
        campaign = load_campaign(results, name)
        if campaign is None:
            return _study_entry(name, results, status_of(name, results))
        studies = [
            _study_entry(member.spec.name, results, status_of(member.spec.name, results)) for member in campaign.members
        ]
    except GitdistError as error:
        return Entry(name=name, kind="study", state=f"damaged: {error}", finished=0, total=0, best=None, at=None)
    states = [study.state for study in studies]
    finished = states.count("finished")
    state = "finished" if finished == len(studies) else "running" if "running" in states else "unfinished"
    times = [study.at for study in studies if study.at]
    return Entry(
        name=name,
        kind="campaign",
        state=state,
        finished=finished,
        total=len(studies),
        best=None,
        at=max(times, default=None),
    )


def _study_entry(name: str, results: Results, status: StudyStatus | None) -> Entry:
    if status is None:
        return Entry(name=name, kind="study", state="not started", finished=0, total=0, best=None, at=None)
    return Entry(
        name=name,
        kind="study",
        state=status.state,
        finished=status.counts.get("finished", 0),
        total=status.total,
        best=dict(zip(status.objectives, status.best[0]["objectives"], strict=True)) if status.best else None,
        at=_last_time(StudyPaths.at(results, name).times),
    )


def _last_time(file: Path) -> str | None:
    with suppress(OSError):
        return datetime.fromtimestamp(file.stat().st_mtime).astimezone().isoformat(timespec="seconds")
    return None
