"""Runs Ray tasks for trials, a bounded number at once, and turns their errors into messages for users."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from gitdist.errors import GitdistError, StudyError, TrialFailedError, first_line
from gitdist.stream.reservation import POLL_S
from gitdist.study.files.layout import TrialId


def run_tasks(
    submit: Callable[[TrialId], Any],
    trials: Iterable[TrialId],
    max_concurrent: int,
    task: str,
    on_poll: Callable[[], None],
) -> Iterator[TrialId]:
    """Run one task per trial and yield each trial when its task has succeeded.

    Args:
        submit: submits a trial's task and returns its reference.
        trials: the trials.
        max_concurrent: submitted tasks at once; an autoscaling cluster adds nodes for submitted tasks.
        task: a description for messages, with ``{}`` for the trial: "evaluate trial {} on test".
        on_poll: called every few seconds; may raise to end the wait.

    Raises:
        GitdistError: a task's own error.
        StudyError: a value in a task was not finite, or its worker was lost repeatedly.
    """
    remaining = list(trials)
    running: dict[Any, TrialId] = {}
    while remaining or running:
        while remaining and len(running) < max_concurrent:
            trial = remaining.pop(0)
            running[submit(trial)] = trial
        ended, _ = ray.wait(list(running), timeout=POLL_S)
        on_poll()
        for reference in ended:
            trial = running.pop(reference)
            _check(reference, task.format(trial))
            yield trial


def _check(reference: Any, task: str) -> None:
    try:
        ray.get(reference)
    except RayTaskError as error:
        raise to_user_error(error, f"could not {task}: {error.cause}") from None
    except RayError as error:
        raise StudyError(
            f"could not {task}: its worker was lost ({first_line(error)}); run the same command again"
        ) from None


def to_user_error(error: RayTaskError, diverged: str) -> Exception:
    """Return the task's own user error, a StudyError with ``diverged`` if a value is not finite, else ``error``."""
    if isinstance(error.cause, GitdistError):
        return error.cause
    return StudyError(diverged) if isinstance(error.cause, TrialFailedError) else error
