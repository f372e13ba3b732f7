"""Events of a study's trials, for observers such as the live display and MLflow. Observers do not change the study."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from gitdist.study.files.layout import TrialId
from gitdist.trial.epoch_row import EpochRow


@dataclass(frozen=True)
class Outcome:
    """State of a trial: running, ended, or interrupted (the next driver resumes it); with its last epoch, if any."""

    state: Literal["running", "finished", "pruned", "failed", "interrupted"]
    epoch: int | None = None
    reason: str | None = None


TrialStates = Mapping[TrialId, tuple[Mapping[str, Any], Outcome | None]]
"""Parameters and outcome of each trial that was ever started; the outcome is None until the trial has ended."""


class Observer(Protocol):
    """Receives the events of a study's trials; the driver calls one method at a time.

    Subclasses implement only the events that they need.
    """

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """A trial started, or was resumed."""
        return

    def trial_linked(self, trial: TrialId, links: Mapping[str, int]) -> None:
        """A trial that has just started repeats (``repeat_of``) or replicates (``replicate_of``) another."""
        return

    def trial_waits(self, trial: TrialId) -> None:
        """A trial waits for its first stage, which another trial trains; called every few seconds."""
        return

    def no_capacity(self, waited_s: float) -> None:
        """No trial has found free capacity on the cluster for ``waited_s`` seconds; called repeatedly."""
        return

    def epoch_ended(self, trial: TrialId, row: EpochRow) -> None:
        """A trial completed an epoch."""
        return

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """A trial ended, or was interrupted."""
        return


class TrainingProgress(Observer):
    """Records whether this process has trained any epoch of the study."""

    def __init__(self) -> None:
        """Start without a trained epoch."""
        self._started_at = time.time()
        self.any_epoch = False

    def epoch_ended(self, trial: TrialId, row: EpochRow) -> None:
        """Count an epoch; rows that a resumed trial reports again do not count."""
        self.any_epoch = self.any_epoch or (row.ended_at or 0.0) > self._started_at
