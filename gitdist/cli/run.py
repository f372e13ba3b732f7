"""``gitdist run | resume | retry``: a study from where it stands to its end."""

import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from gitdist.cli.tables import summary_tables
from gitdist.spec import StudySpec
from gitdist.study.paths import StudyPaths

_RESTARTS = "GITDIST_RESTARTS"
_MAX_RESTARTS = 3


def run_to_the_end(
    spec: StudySpec,
    results: Path,
    console: Console,
    *,
    address: str | None,
    take_over: bool,
    retry_failed: bool = False,
    fork_name: str | None = None,
) -> None:
    """Run a study, print what it found, or how to go on with it where it was interrupted (exit code 130).

    Args:
        spec: the study.
        results: the results directory.
        console: where to print.
        address: Ray cluster to join.
        take_over: end the term of a driver that seems to live.
        retry_failed: try failed trials again.
        fork_name: run it as another study of this name.
    """
    from gitdist.study.driver import fork, is_settled  # takes seconds; a mistake in the file is told at once
    from gitdist.study.runner import RunOptions, run_study

    if fork_name is not None:
        spec = fork(spec, fork_name)
    options = RunOptions(
        address=address,
        take_over=take_over,
        retry_failed=retry_failed,
        on_ray_death=partial(_restart, _resume_command(spec.name, results, address)),
    )
    try:
        summary = run_study(spec, results, console, options)
    except KeyboardInterrupt:
        settled = is_settled(StudyPaths(results.resolve(), spec.name), spec)
        resume = shlex.join(["gitdist", *_resume_command(spec.name, results, address)])
        command = resume if settled else "the same command"
        console.print(f"interrupted; go on with it by: {command}", highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    for table in summary_tables(summary):
        console.print(table)
    console.print(f"look at it: gitdist ui --results {results}", highlight=False, style="dim")


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
