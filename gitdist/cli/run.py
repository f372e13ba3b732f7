"""``gitdist run | resume | retry``: run a study, or the studies of a campaign, to the end."""

import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console

from gitdist.cli.console import print_line
from gitdist.cli.errors import error_message
from gitdist.cli.studies import stored_plan
from gitdist.cli.tables import summary_tables
from gitdist.errors import (
    DiskError,
    GitdistError,
    LedgerOutageError,
    RayUnavailableError,
    SpecError,
    StudyError,
    StudyLockedError,
)
from gitdist.spec import StudySpec
from gitdist.spec.campaign import Campaign, Member
from gitdist.spec.file import override_plan
from gitdist.study.cluster.signals import STOPPED, discard_lost_output, interruptible, stop_requested
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import Results

_RESTARTS = "GITDIST_RESTARTS"
_MAX_RESTARTS = 3
_OTHERS_RUN = 3  # exit code
_SAME_COMMAND = "the same command"


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """The options of the commands that run studies."""

    address: str | None = None
    take_over: bool = False
    retry_failed: bool = False
    fork_name: str | None = None
    asks: bool = False  # before a study begins that takes more than a day


def run_stored(
    study: str, overrides: Sequence[str], results: Results, console: Console, options: CommandOptions
) -> None:
    """Run a started study or campaign, which is given by its name or its file, as ``run_plan`` does."""
    run_plan(override_plan(stored_plan(study, results), overrides), results, console, options)


def check_plan(plan: StudySpec | Campaign, results: Results, console: Console, options: CommandOptions) -> None:
    """Print what ``run_plan`` would do and cost, and refuse what it would refuse; write and start nothing."""
    from gitdist.cli.dry_run import show_dry_run

    show_dry_run(
        plan,
        results,
        console,
        address=options.address,
        take_over=options.take_over,
        fork_name=options.fork_name,
    )


def run_plan(plan: StudySpec | Campaign, results: Results, console: Console, options: CommandOptions) -> None:
    """Run a study, or the studies of a campaign in turn, and print the results.

    If it is interrupted, the command that resumes it is printed (exit code 130). Several drivers may run a campaign at
    once: each runs the next study that no other driver owns; if other drivers still run studies at the end, the exit
    code is 3. If a study of a campaign fails, the others still run, and the failure is printed at the end.
    """
    with _resumable(console, lambda: _SAME_COMMAND):
        if isinstance(plan, Campaign):
            _run_campaign(plan, results, console, options)
        else:
            _run_single(plan, results, console, options)


def _run_single(plan: StudySpec, results: Results, console: Console, options: CommandOptions) -> None:
    summary = _run_study(plan, results, console, options, plan.name)
    for table in summary_tables(summary):
        console.print(table)
    if plan.methods:
        _compare([Member(labels={}, spec=plan.model_copy(update={"name": summary["study"]}))], results, console)
    if summary["best"] and not summary.get("pareto"):
        export = f"gitdist export {summary['study']} --out model.pt2 --results {results}"
        print_line(console, f"write the best model to a file with: {export}", style="dim")
    command = f"report {summary['study']}" if results.uri else "ui"
    print_line(console, f"show the results with: gitdist {command} --results {results}", style="dim")


def _run_campaign(campaign: Campaign, results: Results, console: Console, options: CommandOptions) -> None:
    from gitdist.study.campaign import store_campaign

    if options.fork_name is not None:
        raise SpecError(
            f"--fork takes one study, but '{campaign.name}' has {len(campaign.members)}; --set name=NAME starts "
            "another campaign"
        )
    store_campaign(results, campaign)
    owned_by_others: list[str] = []
    failures: dict[str, str] = {}
    for number, member in enumerate(campaign.members, 1):
        name = member.spec.name
        console.rule(f"{number} of {len(campaign.members)}: {name}", align="left")
        try:
            _run_study(member.spec, results, console, options, campaign.name)
        except StudyLockedError as refusal:
            owned_by_others.append(name)
            print_line(console, f"skipped: {refusal}")
        except (DiskError, LedgerOutageError, RayUnavailableError):  # every other study would fail too
            raise
        except GitdistError as error:
            failures[name] = error_message(error)
            print_line(console, f"failed: {failures[name]}")
    _compare([member for member in campaign.members if member.spec.name not in failures], results, console)
    print_line(console, f"report with: gitdist report {campaign.name} --results {results}", style="dim")
    unfinished = []
    for name in owned_by_others:
        paths = StudyPaths.at(results, name)
        paths.pull()
        unfinished += [] if paths.summary.exists() else [name]
    if unfinished:
        print_line(console, f"other drivers run {len(unfinished)} studies: {', '.join(unfinished)}")
    if failures:
        for name, reason in failures.items():
            print_line(console, f"{name} failed: {reason}")
        again = shlex.join(["gitdist", *_resume_command(campaign.name, results, options.address)])
        raise StudyError(
            f"{len(failures)} of {len(campaign.members)} studies of '{campaign.name}' failed: {', '.join(failures)}; "
            f"fix the errors above, then: {again}"
        )
    if unfinished:
        raise typer.Exit(_OTHERS_RUN)


def _compare(members: Sequence[Member], results: Results, console: Console) -> None:
    from gitdist.cli.report import comparison_tables  # imports matplotlib, which no study needs to start

    for table in comparison_tables(members, results):
        console.print(table)


def _run_study(
    spec: StudySpec, results: Results, console: Console, options: CommandOptions, resumed_as: str
) -> dict[str, Any]:
    # These are slow to import; a mistake in the study file is reported before.
    from gitdist.study.compatibility import fork, is_spec_stored
    from gitdist.study.run import run_study
    from gitdist.study.running_study import RunOptions

    if options.fork_name is not None:
        spec = fork(spec, options.fork_name)
        resumed_as = spec.name
    resume = _resume_command(resumed_as, results, options.address)
    run_options = RunOptions(
        address=options.address,
        take_over=options.take_over,
        retry_failed=options.retry_failed,
        confirm=partial(_confirm, console) if options.asks else None,
        on_ray_death=partial(_resume_after_ray_death, resume),
    )

    def command() -> str:
        stored = is_spec_stored(StudyPaths.at(results, spec.name), spec)
        return shlex.join(["gitdist", *resume]) if stored else _SAME_COMMAND

    with _resumable(console, command), results.rewriting_errors():
        summary = run_study(spec, results, console, run_options)
    if not spec.search.total:
        samples = StudyPaths.at(results, spec.name).samples.name
        print_line(console, f"draws of the generator: {results}/{spec.name}/{samples}")
    return summary


def _confirm(console: Console, estimate: str) -> None:
    """Ask on a terminal whether a long study shall begin; raise StudyError if it shall not, or nobody can be asked."""
    if not (sys.stdin.isatty() and console.is_terminal):
        raise StudyError(f"{estimate}; to start it, add --yes")
    try:
        agreed = typer.confirm("Start it?")
    except typer.Abort:  # the end of input
        agreed = False
    if not agreed:
        raise StudyError("the study was not started; change its file, or start it with --yes")


@contextmanager
def _resumable(console: Console, command: Callable[[], str]) -> Iterator[None]:
    """If this process is asked to stop in the block, print the command that resumes, and exit with ``STOPPED``.

    Any error after that is taken as a consequence: Ray's processes may have been stopped together with this one.
    """

    def report() -> None:
        discard_lost_output()
        print_line(console, f"interrupted; resume with: {command()}")

    try:
        with interruptible(on_overdue=report):
            yield
    except (KeyboardInterrupt, Exception) as error:
        if isinstance(error, typer.Exit) or not (isinstance(error, KeyboardInterrupt) or stop_requested()):
            raise
        report()
        raise typer.Exit(STOPPED) from None
    except SystemExit as end:
        raise StudyError(f"code of another package has ended the study with sys.exit({end.code!r})") from end


def _resume_command(study: str, results: Results, address: str | None) -> list[str]:
    return ["resume", study, "--results", str(results), *(["--address", address] if address else [])]


def _resume_after_ray_death(resume: list[str], started_here: bool, progress: bool) -> NoReturn:
    """Resume in a new process image, since Ray may block the main thread forever; exit if the cluster has died."""
    command = shlex.join(["gitdist", *resume])
    if stop_requested():
        print(f"interrupted; resume with: {command}", flush=True)
        os._exit(STOPPED)
    restarts = 0 if progress else int(os.environ.get(_RESTARTS, "0"))
    sys.stdout.flush()
    if started_here and restarts < _MAX_RESTARTS:
        os.environ[_RESTARTS] = str(restarts + 1)
        # A checkout that is not installed is found in the working directory; nothing else should be.
        safely = [] if os.path.samefile(".", Path(__file__).parents[2]) else ["-P"]
        os.execv(sys.executable, [sys.executable, *safely, "-m", "gitdist", *resume])
    again = f"when the cluster runs again, resume with: {command}"
    died = f"Ray has died {restarts + 1} times without a trained epoch; fix the cause, then: {command}"
    print(died if started_here else again, file=sys.stderr, flush=True)
    os._exit(1)
