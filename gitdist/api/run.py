"""Runs a study from Python: ``gitdist.run``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from gitdist.api.arguments import plain_number
from gitdist.api.callbacks import Callback, CallbackError, CallbackObserver
from gitdist.api.dataset import Dataset
from gitdist.api.study import Study
from gitdist.errors import SpecError
from gitdist.input_file import expand_home
from gitdist.logging import restoring_libraries
from gitdist.spec import StudySpec
from gitdist.spec.base import Spec
from gitdist.spec.campaign import Campaign
from gitdist.spec.file import load_plan, read_plan
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.results import open_results
from gitdist.study.run import run_study
from gitdist.study.running_study import RunOptions


def run(
    spec: str | Path | Mapping[str, Any] | StudySpec,
    *,
    results: str | Path = "results",
    scale: str | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    address: str | None = None,
    retry_failed: bool = False,
    take_over: bool = False,
) -> Study:
    """Run a study until it is finished; if it was begun before, resume it, or do nothing if it is finished.

    Ctrl-C, or the interrupt of a notebook, stops the trials after their current epochs, a second one at once. Another
    thread than the main one cannot be interrupted like that. If this process uses Ray already, the study runs there,
    and Ray stays; else Ray is started on this machine, or joined, for the time of the call. If Ray's control process is
    killed, Ray itself exits this process after a minute; the same call resumes the study.

    Args:
        spec: path of a study file, the values of one, or a ``StudySpec``. Among the values, ``data`` may be a
            ``gitdist.Dataset``. Relative paths among them are relative to the working directory.
        results: results directory, or a URI such as ``s3://bucket/prefix``.
        scale: one of the scales in the study file; None = the first, if it has any.
        callbacks: receive the events of the trials, see ``gitdist.api.callbacks.Callback``.
        progress: print the progress.
        address: Ray cluster to join, ``HOST:PORT``; None = ``$RAY_ADDRESS``, else this machine.
        retry_failed: train the failed trials again, under new numbers.
        take_over: take over the study from a process that seems to be alive.

    Raises:
        GitdistError: the study cannot run, or stopped early; in the latter case the same call resumes it.
        KeyboardInterrupt: the user stopped it; the same call resumes it.
        Exception: of a callback; the same call resumes the study.
    """
    if not isinstance(callbacks, Sequence):
        raise SpecError(f"callbacks must be a list, but it is a {type(callbacks).__name__}; put it into a list")
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise SpecError(
                f"callbacks must be instances of gitdist.api.callbacks.Callback, but one is {type(callback).__name__}; "
                "make it a subclass"
            )
    study = _read_spec(spec, scale)
    options = RunOptions(
        address=address,
        take_over=take_over,
        retry_failed=retry_failed,
        observers=(CallbackObserver(callbacks),),
        study_file=expand_home(spec) if isinstance(spec, str | Path) else None,
    )
    opened = open_results(results)
    opened.connect()
    console = Console() if progress else Console(quiet=True, force_terminal=False)
    try:
        with restoring_libraries(), opened.rewriting_errors():
            run_study(study, opened, console, options)
    except CallbackError as error:
        assert error.__cause__ is not None, "it is raised from the callback's exception"
        raise error.__cause__ from None
    return Study(StudyPaths.at(opened, study.name))


def _read_spec(spec: str | Path | Mapping[str, Any] | StudySpec, scale: str | None) -> StudySpec:
    if isinstance(spec, Mapping):
        plan = read_plan(_plain(spec), Path.cwd(), "the values of the study", scale)
    elif isinstance(spec, StudySpec):
        plan = spec
    elif isinstance(spec, str | Path):
        plan = load_plan(expand_home(spec), scale=scale)
    else:
        raise SpecError(
            f"run takes the path of a study file, the values of one, or a StudySpec, but not a {type(spec).__name__}"
        )
    if isinstance(plan, Campaign):
        raise SpecError(
            f"run takes one study, but the matrix of '{plan.name}' makes {len(plan.members)}; leave the matrix out and "
            "call run for each of its studies, or use `gitdist run`"
        )
    return plan


def _plain(value: Any) -> Any:
    """Return values as a study file has them."""
    match value:
        case Dataset():
            return _plain(value.spec)
        case Spec():
            return value.model_dump(mode="json", by_alias=True)
        case Mapping():
            return {name: _plain(each) for name, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
        case Path():
            return str(value)
    return plain_number(value)
