"""``gitdist run | resume | retry``: a study from where it stands to its end."""

import os
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import typer
from rich.console import Console

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


def run_to_the_end(plan: StudySpec | Campaign, results: Results, console: Console, how: HowToRun) -> None:
    """Run a study, or the studies of a campaign one by one, and print what was found.

    Where it is interrupted, the command that goes on is printed (exit code 130). Of a campaign several drivers may run
    at once: each takes the next study that no other has; where the last of it is left to others, the exit code is 3.
    A study of it that cannot be run is named at the end, and does not keep the others from being run.

    Args:
        plan: what to run.
        results: the results directory, or the results on an object store.
        console: where to print.
        how: in which way.

    Raises:
        GitdistError: a study cannot be run as asked, or not to its end.
    """
    if isinstance(plan, Campaign):
        _run_campaign(plan, results, console, how)
    else:
        summary = _run_study(plan, results, console, how, plan.name)
        for table in summary_tables(summary):
            console.print(table)
        if plan.methods:
            _compare([Member(labels={}, spec=plan.model_copy(update={"name": summary["study"]}))], results, console)
        look = f"report {summary['study']}" if results.uri else "ui"
        _say(console, f"look at it: gitdist {look} --results {results}", style="dim")


def _run_campaign(campaign: Campaign, results: Results, console: Console, how: HowToRun) -> None:
    from gitdist.study.campaign import settle_campaign

    if how.fork_name is not None:
        told = f"'{campaign.name}' is {len(campaign.members)}; --set name=NAME makes another campaign of it"
        raise SpecError(f"--fork takes one study, but {told}")
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
            _say(console, f"left to its driver: {refusal}")
        except (DiskError, RayUnavailableError):  # every other study would meet the same
            raise
        except GitdistError as error:
            failures[name] = error_message(error)
            _say(console, f"failed: {failures[name]}")
    _compare([member for member in campaign.members if member.spec.name not in failures], results, console)
    _say(console, f"the whole of it: gitdist report {campaign.name} --results {results}", style="dim")
    left = [name for name in elsewhere if not _is_finished(results, name)]
    if left:
        _say(console, f"{len(left)} studies are left to other drivers: {', '.join(left)}")
    if failures:
        for name, reason in failures.items():
            _say(console, f"{name} failed: {reason}")
        raise StudyError(_told_of(failures, campaign, results, how))
    if left:
        raise typer.Exit(_LEFT_TO_OTHERS)


def _told_of(failures: Collection[str], campaign: Campaign, results: Results, how: HowToRun) -> str:
    again = shlex.join(["gitdist", *_resume_command(campaign.name, results, how.address)])
    return (
        f"{len(failures)} of {len(campaign.members)} studies of '{campaign.name}' failed: {', '.join(failures)}; mend "
        f"what is said of each above, then: {again}"
    )


def _compare(members: Sequence[Member], results: Results, console: Console) -> None:
    from gitdist.cli.comparison import comparison_tables  # and matplotlib with it, which no study needs to start

    for table in comparison_tables(members, results):
        console.print(table)


def _run_study(spec: StudySpec, results: Results, console: Console, how: HowToRun, resumed_as: str) -> dict[str, Any]:
    from gitdist.study.compatibility import fork, is_settled  # takes seconds; a mistake in the file is told at once
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
        command = shlex.join(["gitdist", *resume]) if settled else "the same command"
        _say(console, f"interrupted; go on with it by: {command}")
        raise typer.Exit(130) from None
    if not spec.search.total:
        samples = StudyPaths.at(results, spec.name).samples.name
        _say(console, f"draws of the generator: {results}/{spec.name}/{samples}")
    return summary


def _is_finished(results: Results, name: str) -> bool:
    paths = StudyPaths.at(results, name)
    paths.pull()
    return paths.summary.exists()


def _say(console: Console, text: str, style: str | None = None) -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def _resume_command(study: str, results: Results, address: str | None) -> list[str]:
    return ["resume", study, "--results", str(results), *(["--address", address] if address else [])]


def _after_ray(resume: list[str], started_here: bool, progress: bool) -> NoReturn:
    """Resume the study in place of this process, whose main thread Ray may hold for good; without its cluster, end.

    Args:
        resume: the arguments of the command that goes on.
        started_here: whether this process had started Ray; else it was a cluster's.
        progress: whether any epoch was trained since the last time.
    """
    command = shlex.join(["gitdist", *resume])
    if not started_here:
        _die(f"when the cluster runs again, go on with it by: {command}")
    restarts = 0 if progress else int(os.environ.get(_RESTARTS, "0"))
    if restarts == _MAX_RESTARTS:
        _die(f"Ray has died {restarts + 1} times without an epoch between; mend the cause, then: {command}")
    os.environ[_RESTARTS] = str(restarts + 1)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "gitdist", *resume])


def _die(told: str) -> NoReturn:
    sys.stdout.flush()
    print(told, file=sys.stderr, flush=True)
    os._exit(1)
