"""What happens in a study, for those who watch: the live display and MLflow. Watchers decide nothing."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gitdist.study.files.layout import TrialId

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a trial stands: running, ended, or left for the next driver (interrupted); with its last row, if any."""

    state: Literal["running", "finished", "pruned", "failed", "interrupted"]
    row: Row | None = None
    reason: str | None = None


TrialStates = Mapping[TrialId, tuple[Mapping[str, Any], Outcome | None]]
"""Parameters and outcome of each trial that was ever started; no outcome where it has not ended."""


class Observer(Protocol):
    """Whoever wants to know of the trials of a study; called by the driver, one call at a time.

    A class that derives from it need only have what it wants to know of.
    """

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """A trial began (or went on, where an earlier driver had begun it)."""
        return

    def trial_linked(self, trial: TrialId, links: Mapping[str, int]) -> None:
        """A trial that has just started trains the same as another: ``repeat_of`` it or ``replicate_of`` it."""
        return

    def trial_waits(self, trial: TrialId) -> None:
        """A trial waits for its first stage, which another trial trains; told every few seconds."""
        return

    def no_room(self, waited_s: float) -> None:
        """No trial has found room on the cluster for so many seconds; told now and then."""
        return

    def epoch_ended(self, trial: TrialId, row: Row) -> None:
        """A trial finished an epoch."""
        return

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """A trial ended, or stopped for now."""
        return


class Observers:
    """Several observers as one."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        """Tell each of ``observers``, in order."""
        self._observers = tuple(observers)

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.trial_started(trial, params)

    def trial_linked(self, trial: TrialId, links: Mapping[str, int]) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.trial_linked(trial, links)

    def trial_waits(self, trial: TrialId) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.trial_waits(trial)

    def no_room(self, waited_s: float) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.no_room(waited_s)

    def epoch_ended(self, trial: TrialId, row: Row) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.epoch_ended(trial, row)

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Pass it on."""
        for observer in self._observers:
            observer.trial_ended(trial, outcome)


class Progress(Observer):
    """An observer that keeps whether any epoch was trained since it began, on this machine."""

    def __init__(self) -> None:
        """Begin without any."""
        self._began = time.time()
        self.made = False

    def epoch_ended(self, trial: TrialId, row: Row) -> None:
        """Keep that there was one; a resumed trial's old rows come again."""
        self.made = self.made or row.get("ended_at", 0.0) > self._began
