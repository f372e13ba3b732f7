"""What a task on the cluster returned, or its error as the user should see it."""

from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from gitdist.errors import GitdistError, StudyError, TrialFailure, first_line


def result_of(reference: Any, task: str) -> Any:
    """Wait for a task and return what it returned.

    Args:
        reference: the task's.
        task: what it is to do, for messages: "evaluate trial 3 on test".

    Raises:
        GitdistError: the task's own error.
        StudyError: the task ran into a value that is not finite, or its worker was lost again and again.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise for_the_user(error, f"to {task} failed: {error.cause}") from None
    except RayError as error:
        raise StudyError(
            f"to {task} failed, for its worker was lost ({first_line(error)}); run the same command again"
        ) from None


def for_the_user(error: RayTaskError, diverged: str) -> Exception:
    """Return what a task's error is to the user: its own line, ``diverged`` for a value not finite, else a bug."""
    if isinstance(error.cause, GitdistError):
        return error.cause
    return StudyError(diverged) if isinstance(error.cause, TrialFailure) else error
