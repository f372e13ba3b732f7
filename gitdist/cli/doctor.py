"""``gitdist doctor``: whether this machine, a cluster and a study's services will do, and what to do about the rest."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gitdist.doctor.examination import Request, examine
from gitdist.doctor.finding import HERE, Finding, as_json, has_problem
from gitdist.doctor.patience import OutOfPatience, any_left, within
from gitdist.doctor.study_file import check_secrets
from gitdist.spec import StudySpec
from gitdist.spec.file import load_plan
from gitdist.study.files.results import ObjectStoreResults

_DISK_S = 10.0
_PLACE_WIDTH = 16  # an address of IPv4
_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True, kw_only=True)
class HowToExamine:
    """The options of the command.

    Attributes:
        address: the cluster; None = ``$RAY_ADDRESS``, else this machine alone.
        overrides: the ``FIELD=VALUE`` of the command line.
        scale: the study file's scale.
        as_json: one JSON object instead of a table.
    """

    address: str | None = None
    overrides: Sequence[str] = ()
    scale: str | None = None
    as_json: bool = False


def show_findings(study: Path | None, results: str, console: Console, asked: HowToExamine) -> None:
    """Examine, print what was found, and end with exit code 2 where there is a problem.

    Args:
        study: the study file; None = machine and cluster alone.
        results: the results directory, or the URI of results on an object store.
        console: where to print.
        asked: in which way.

    Raises:
        SpecError: the study file breaks a rule, or the URI holds credentials.
        Exit: with 2, there is a problem.
    """
    findings: list[Finding] = []
    specs: tuple[StudySpec, ...] = ()
    if study is not None:
        plan = load_plan(study, asked.overrides, asked.scale)
        specs = (plan,) if isinstance(plan, StudySpec) else tuple(member.spec for member in plan.members)
        findings += check_secrets(study, study.read_text(), asked.overrides)
    address = asked.address or os.environ.get("RAY_ADDRESS")
    place = ObjectStoreResults(results) if "://" in results else _resolved(Path(results))
    request = Request(results=place, address=None if address == "local" else address, specs=specs)
    findings += examine(request)
    if asked.as_json:
        console.print_json(json.dumps(as_json(findings)), indent=2)
    else:
        console.print(_table(findings))
    _end(2 if has_problem(findings) else 0)


def _resolved(path: Path) -> Path:
    try:
        return within(_DISK_S, path.resolve)
    except OutOfPatience:  # its disk hangs, which the examination tells
        return path.absolute()


def _table(findings: Sequence[Finding]) -> Table:
    """Return the findings, each remedy below what it mends: so five columns find room in a terminal of 80."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for header in ("state", "check", "place"):
        table.add_column(header, no_wrap=header != "place", overflow="fold", max_width=_PLACE_WIDTH)
    table.add_column("seen, and what to do", overflow="fold")
    for finding in _collapsed(findings):
        state = Text(finding.state, style=_STYLES[finding.state])
        table.add_row(state, finding.check, Text(finding.place), Text(finding.seen))
        if finding.remedy:
            table.add_row("", "", "", Text(f"-> {finding.remedy}"))
    return table


def _collapsed(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings with those that several nodes share in one line."""
    places: dict[tuple[str, str, str, str], list[str]] = {}
    for found in findings:
        key = (found.check, found.state, found.seen, found.remedy)
        places.setdefault(key, []).append(found.place)
    return [
        Finding(check, at[0] if len(at) == 1 else _told(at), state, seen, remedy)  # type: ignore[arg-type]
        for (check, state, seen, remedy), at in places.items()
    ]


def _told(places: Sequence[str]) -> str:
    nodes = [place for place in places if place != HERE]
    return f"{'here, ' if HERE in places else ''}{len(nodes)} node{'s' if len(nodes) > 1 else ''}"


def _end(code: int) -> None:
    """End the program: at once where a probe still hangs, for which Ray's own end would wait."""
    if any_left():
        sys.stdout.flush()
        os._exit(code)
    if code:
        raise typer.Exit(code)
