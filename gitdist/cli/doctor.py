"""``gitdist doctor``: checks this machine, a cluster and a study's services, with a remedy for each finding."""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gitdist.disk import real_path
from gitdist.doctor.examination import examine
from gitdist.doctor.finding import HERE, Finding, as_json, worst_state
from gitdist.doctor.time_limit import NoAnswerError, answer_within, any_abandoned
from gitdist.spec import StudySpec
from gitdist.spec.campaign import Campaign
from gitdist.study.files.results import ObjectStoreResults

_DISK_S = 10.0
_PLACE_WIDTH = 16  # an address of IPv4
_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


def show_findings(
    plan: StudySpec | Campaign | None, results: str, address: str | None, console: Console, is_json: bool
) -> None:
    """Examine, print the findings, and exit with 2 if there is a problem."""
    specs = [member.spec for member in plan.members] if isinstance(plan, Campaign) else [plan] if plan else []
    address = address or os.environ.get("RAY_ADDRESS")
    location = ObjectStoreResults(results) if "://" in results else _resolve(Path(results))
    findings = examine(location, None if address == "local" else address, specs)
    if is_json:
        console.print_json(data=as_json(findings))
    else:
        console.print(_table(findings))
    code = 2 if worst_state(findings) == "problem" else 0
    if any_abandoned():  # Ray's shutdown would wait for it
        sys.stdout.flush()
        os._exit(code)
    raise typer.Exit(code)


def _resolve(path: Path) -> Path:
    try:
        return answer_within(_DISK_S, partial(real_path, path))
    except NoAnswerError:  # its disk hangs: a check reports that
        return path.absolute()


def _table(findings: Sequence[Finding]) -> Table:
    """Return the findings, each remedy below its finding, in 80 columns; equal ones of several nodes share a row."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for header in ("state", "check", "place"):
        table.add_column(header, no_wrap=header != "place", overflow="fold", max_width=_PLACE_WIDTH)
    table.add_column("finding and remedy", overflow="fold")
    places: dict[tuple[str, str, str, str], list[str]] = {}
    for found in findings:
        places.setdefault((found.state, found.check, found.seen, found.remedy), []).append(found.place)
    for (state, check, seen, remedy), at in places.items():
        nodes = [place for place in at if place != HERE]
        several = f"{'here, ' if HERE in at else ''}{len(nodes)} node{'s' * (len(nodes) > 1)}"
        place = at[0] if len(at) == 1 else several
        table.add_row(Text(state, style=_STYLES[state]), check, Text(place), Text(seen))
        if remedy:
            table.add_row("", "", "", Text(f"-> {remedy}"))
    return table
