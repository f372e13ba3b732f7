"""``gitdist run | resume | retry``: runs a study, or the studies of a campaign, to the end."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import typer
from rich.console import Console

from gitdist.cli.console import say
from gitdist.cli.errors import error_message
from gitdist.cli.tables import summary_tables
from gitdist.errors import DiskError, GitdistError, RayUnavailableError, SpecError, StudyError, StudyLockedError
from gitdist.spec import StudySpec
from gitdist.spec.campaign import Campaign, Member
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results

_RESTARTS = "GITDIST_RESTARTS"
_MAX_RESTARTS = 3
_LEFT_TO_OTHERS = 3  # exit code


@dataclass(frozen=True, kw_only=True)
class HowToRun:
    """The options of the commands that run studies."""

    address: str | None = None
    take_over: bool = False
    retry_failed: bool = False
    fork_name: str | None = None


def run_to_the_end(plan: StudySpec | Campaign, results: Results, console: Console, how: HowToRun) -> None:
    """Run a study, or the studies of a campaign in turn, and print the results.

    If it is interrupted, the command that resumes it is printed (exit code 130). Several drivers may run a campaign at
    once: each takes the next study that no other has; if the last ones are left to others, the exit code is 3. A study
    of a campaign that cannot be run is named at the end, and the others are run.
    """
    if isinstance(plan, Campaign):
        _run_campaign(plan, results, console, how)
        return
    summary = _run_study(plan, results, console, how, plan.name)
    for table in summary_tables(summary):
        console.print(table)
    if plan.methods:
        _compare([Member(labels={}, spec=plan.model_copy(update={"name": summary["study"]}))], results, console)
    look = f"report {summary['study']}" if results.uri else "ui"
    say(console, f"look at it: gitdist {look} --results {results}", style="dim")


def _run_campaign(campaign: Campaign, results: Results, console: Console, how: HowToRun) -> None:
    from gitdist.study.campaign import settle_campaign

    if how.fork_name is not None:
        raise SpecError(
            f"--fork takes one study, but '{campaign.name}' is {len(campaign.members)}; --set name=NAME makes another "
            "campaign of it"
        )
    settle_campaign(results, campaign)
    elsewhere: list[str] = []
    failures: dict[str, str] = {}
    for number, member in enumerate(campaign.members, 1):
        name = member.spec.name
        console.rule(f"{number} of {len(campaign.members)}: {name}", align="left")
        try:
            _run_study(member.spec, results, console, how, campaign.name)
        except StudyLockedError as refusal:
            elsewhere.append(name)
            say(console, f"left to its driver: {refusal}")
        except (DiskError, RayUnavailableError):  # every other study would fail too
            raise
        except GitdistError as error:
            failures[name] = error_message(error)
            say(console, f"failed: {failures[name]}")
    _compare([member for member in campaign.members if member.spec.name not in failures], results, console)
    say(console, f"report of all: gitdist report {campaign.name} --results {results}", style="dim")
    left = []
    for name in elsewhere:
        paths = StudyPaths.at(results, name)
        paths.pull()
        left += [] if paths.summary.exists() else [name]
    if left:
        say(console, f"{len(left)} studies are left to other drivers: {', '.join(left)}")
    if failures:
        for name, reason in failures.items():
            say(console, f"{name} failed: {reason}")
        again = shlex.join(["gitdist", *_resume_command(campaign.name, results, how.address)])
        raise StudyError(
            f"{len(failures)} of {len(campaign.members)} studies of '{campaign.name}' failed: {', '.join(failures)}; "
            f"fix the errors above, then: {again}"
        )
    if left:
        raise typer.Exit(_LEFT_TO_OTHERS)


def _compare(members: Sequence[Member], results: Results, console: Console) -> None:
    from gitdist.cli.report import comparison_tables  # imports matplotlib, which no study needs to start

    for table in comparison_tables(members, results):
        console.print(table)


def _run_study(spec: StudySpec, results: Results, console: Console, how: HowToRun, resumed_as: str) -> dict[str, Any]:
    from gitdist.study.compatibility import (
        fork,
        is_settled,
    )  # slow to import; a mistake in the file is reported at once
    from gitdist.study.run import RunOptions, run_study

    if how.fork_name is not None:
        spec = fork(spec, how.fork_name)
        resumed_as = spec.name
    resume = _resume_command(resumed_as, results, how.address)
    options = RunOptions(
        address=how.address,
        take_over=how.take_over,
        retry_failed=how.retry_failed,
        on_ray_death=partial(_after_ray, resume),
    )
    try:
        with results.describing_errors():
            summary = run_study(spec, results, console, options)
    except KeyboardInterrupt:
        settled = is_settled(StudyPaths.at(results, spec.name), spec)
        say(console, f"interrupted; resume with: {shlex.join(['gitdist', *resume]) if settled else 'the same command'}")
        raise typer.Exit(130) from None
    if not spec.search.total:
        samples = StudyPaths.at(results, spec.name).samples.name
        say(console, f"draws of the generator: {results}/{spec.name}/{samples}")
    return summary


def _resume_command(study: str, results: Results, address: str | None) -> list[str]:
    return ["resume", study, "--results", str(results), *(["--address", address] if address else [])]


def _after_ray(resume: list[str], started_here: bool, progress: bool) -> NoReturn:
    """Resume the study in place of this process, whose main thread Ray may block forever; without its cluster, exit."""
    command = shlex.join(["gitdist", *resume])
    restarts = 0 if progress else int(os.environ.get(_RESTARTS, "0"))
    sys.stdout.flush()
    if started_here and restarts < _MAX_RESTARTS:
        os.environ[_RESTARTS] = str(restarts + 1)
        os.execv(sys.executable, [sys.executable, "-m", "gitdist", *resume])
    again = f"when the cluster runs again, resume with: {command}"
    died = f"Ray has died {restarts + 1} times without an epoch between; fix the cause, then: {command}"
    print(died if started_here else again, file=sys.stderr, flush=True)
    os._exit(1)
