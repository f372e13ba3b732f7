"""Tasks of trials on the cluster, so many at once, and their errors as the user should see them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from gitdist.errors import GitdistError, StudyError, TrialFailedError, first_line
from gitdist.stream.reservation import POLL_S
from gitdist.study.files.layout import TrialId


def completed(
    submit: Callable[[TrialId], Any],
    trials: Iterable[TrialId],
    max_concurrent: int,
    task: str,
    on_look: Callable[[], None],
) -> Iterator[TrialId]:
    """Run a task for each trial and yield the trials whose task has ended well, in the order of their ends.

    Args:
        submit: submits a trial's task and returns its reference.
        trials: whose.
        max_concurrent: tasks submitted at once; more would have a cluster that adds nodes grow for them.
        task: what it is to do, with the trial in place of ``{}``, for messages: "evaluate trial {} on test".
        on_look: called every few seconds; what it raises ends the wait.

    Raises:
        GitdistError: a task's own error.
        StudyError: a task ran into a value that is not finite, or its worker was lost again and again.
    """
    left = list(trials)
    under_way: dict[Any, TrialId] = {}
    while left or under_way:
        while left and len(under_way) < max_concurrent:
            trial = left.pop(0)
            under_way[submit(trial)] = trial
        ended, _ = ray.wait(list(under_way), timeout=POLL_S)
        on_look()
        for reference in ended:
            trial = under_way.pop(reference)
            _check(reference, task.format(trial))
            yield trial


def _check(reference: Any, task: str) -> None:
    try:
        ray.get(reference)
    except RayTaskError as error:
        raise to_user_error(error, f"to {task} failed: {error.cause}") from None
    except RayError as error:
        raise StudyError(
            f"to {task} failed, for its worker was lost ({first_line(error)}); run the same command again"
        ) from None


def to_user_error(error: RayTaskError, diverged: str) -> Exception:
    """Return what a task's error is to the user: its own line, ``diverged`` for a value not finite, else a bug."""
    if isinstance(error.cause, GitdistError):
        return error.cause
    return StudyError(diverged) if isinstance(error.cause, TrialFailedError) else error
