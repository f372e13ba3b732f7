"""``gitdist run | resume | retry``: a study from where it stands to its end."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

from gitdist.cli.tables import summary_tables
from gitdist.errors import SpecError, StudyOwned
from gitdist.spec import StudySpec
from gitdist.spec.campaign import Campaign, Member
from gitdist.study.paths import StudyPaths

_RESTARTS = "GITDIST_RESTARTS"
_MAX_RESTARTS = 3


@dataclass(frozen=True, kw_only=True)
class HowToRun:
    """The options of the commands that run studies.

    Attributes:
        address: Ray cluster to join.
        take_over: end the term of a driver that seems to live.
        retry_failed: try failed trials again.
        fork_name: run the study as another one of this name.
    """

    address: str | None = None
    take_over: bool = False
    retry_failed: bool = False
    fork_name: str | None = None


def run_to_the_end(plan: StudySpec | Campaign, results: Path, console: Console, how: HowToRun) -> None:
    """Run a study, or the studies of a campaign one by one, and print what was found.

    Where it is interrupted, the command that goes on is printed (exit code 130). Of a campaign several drivers may run
    at once: each takes the next study that no other has.

    Args:
        plan: what to run.
        results: the results directory.
        console: where to print.
        how: in which way.

    Raises:
        GitdistError: a study cannot be run as asked, or not to its end.
    """
    if isinstance(plan, StudySpec):
        summary = _run_study(plan, results, console, how, plan.name)
        for table in summary_tables(summary):
            console.print(table)
        if plan.methods:
            _compare([Member(labels={}, spec=plan.model_copy(update={"name": summary["study"]}))], results, console)
        console.print(f"look at it: gitdist ui --results {results}", highlight=False, style="dim")
        return
    from gitdist.study.campaign import settle_campaign

    if how.fork_name is not None:
        raise SpecError(f"--fork takes one study, but '{plan.name}' is {len(plan.members)}; change name in its file")
    settle_campaign(results.resolve(), plan)
    elsewhere = []
    for number, member in enumerate(plan.members, 1):
        console.rule(f"{number} of {len(plan.members)}: {member.spec.name}", align="left")
        try:
            _run_study(member.spec, results, console, how, plan.name)
        except StudyOwned as refusal:
            elsewhere.append(member.spec.name)
            console.print(f"left to its driver: {refusal}", highlight=False, markup=False, soft_wrap=True)
    _compare(plan.members, results, console)
    console.print(f"the whole of it: gitdist report {plan.name} --results {results}", highlight=False, style="dim")
    if elsewhere:
        told = f"{len(elsewhere)} studies are left to other drivers: {', '.join(elsewhere)}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)


def _compare(members: Sequence[Member], results: Path, console: Console) -> None:
    from gitdist.cli.comparison import comparison_tables  # and matplotlib with it, which no study needs to start

    for table in comparison_tables(members, results):
        console.print(table)


def _run_study(spec: StudySpec, results: Path, console: Console, how: HowToRun, resumed_as: str) -> dict[str, Any]:
    from gitdist.study.driver import fork, is_settled  # takes seconds; a mistake in the file is told at once
    from gitdist.study.runner import RunOptions, run_study

    if how.fork_name is not None:
        spec = fork(spec, how.fork_name)
        resumed_as = spec.name
    resume = _resume_command(resumed_as, results, how.address)
    options = RunOptions(
        address=how.address,
        take_over=how.take_over,
        retry_failed=how.retry_failed,
        on_ray_death=partial(_restart, resume),
    )
    try:
        summary = run_study(spec, results, console, options)
    except KeyboardInterrupt:
        settled = is_settled(StudyPaths(results.resolve(), spec.name), spec)
        command = shlex.join(["gitdist", *resume]) if settled else "the same command"
        console.print(f"interrupted; go on with it by: {command}", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    if not spec.search.total:
        samples = StudyPaths(results, spec.name).samples
        console.print(f"draws of the generator: {samples}", highlight=False, markup=False, soft_wrap=True)
    return summary


def _resume_command(study: str, results: Path, address: str | None) -> list[str]:
    return ["resume", study, "--results", str(results), *(["--address", address] if address else [])]


def _restart(resume: list[str], progress: bool) -> NoReturn:
    """Resume the study in place of this process, whose main thread Ray may hold for good.

    Args:
        resume: the arguments of the command that goes on.
        progress: whether any epoch was trained since the last time.
    """
    restarts = 0 if progress else int(os.environ.get(_RESTARTS, "0"))
    if restarts == _MAX_RESTARTS:
        told = f"Ray has died {restarts + 1} times without an epoch between; mend the cause, then: "
        print(told + shlex.join(["gitdist", *resume]), file=sys.stderr, flush=True)
        os._exit(1)
    os.environ[_RESTARTS] = str(restarts + 1)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "gitdist", *resume])
