"""Callbacks of a running study."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from gitdist.errors import StudyError, one_line
from gitdist.study.files.events import Observer, Outcome
from gitdist.study.files.layout import TrialId
from gitdist.trial.epoch_row import EpochRow

TrialLabel = int | Literal["baseline"]
"""The number of a search trial, or ``"baseline"``."""


class Callback:
    """Receives the events of a study that ``gitdist.run`` runs; a subclass overrides the methods that it needs.

    One method is called at a time, on the thread that called ``run``; trials are trained in other processes meanwhile.
    After an interruption, a trial starts again and its last epochs are reported again. An exception stops the study,
    and ``run`` raises it; the same call of ``run`` resumes the study.
    """

    def trial_started(self, trial: TrialLabel, params: Mapping[str, Any]) -> None:
        """A trial started or was resumed; ``params`` are its searched parameters, none for the baseline."""

    def epoch_ended(self, trial: TrialLabel, epoch: int, metrics: Mapping[str, float]) -> None:
        """A trial completed an epoch, counted from 1.

        ``metrics`` are the numbers in its row of ``Study.rows``, such as ``train/loss`` and, if the epoch was
        evaluated, ``val/balanced_accuracy``.
        """

    def trial_ended(self, trial: TrialLabel, state: str, reason: str | None) -> None:
        """A trial is finished, pruned, failed (with the reason) or interrupted."""


class CallbackError(StudyError):
    """A callback raised an exception, which is the cause of this error."""


class CallbackObserver(Observer):
    """Forwards the events of a study to callbacks."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        """Forward to ``callbacks``, in this order."""
        self._callbacks = tuple(callbacks)

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Forward a start."""
        self._call("trial_started", trial, dict(params))

    def epoch_ended(self, trial: TrialId, row: EpochRow) -> None:
        """Forward the numbers of an epoch's row."""
        numbers = {name: value for name, value in row.to_json().items() if isinstance(value, int | float)}
        self._call("epoch_ended", trial, numbers.pop("epoch"), numbers)

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Forward an end."""
        self._call("trial_ended", trial, outcome.state, outcome.reason)

    def _call(self, method: str, trial: TrialId, *arguments: Any) -> None:
        for callback in self._callbacks:
            try:
                getattr(callback, method)(label(trial), *arguments)
            except Exception as error:
                text = one_line(f"{type(callback).__name__}.{method} raised {type(error).__name__}: {error}")
                raise CallbackError(text) from error


def label(trial: TrialId) -> TrialLabel:
    """Return how a user names a trial."""
    return "baseline" if trial.number is None else trial.number
