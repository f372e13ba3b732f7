"""A study that has been started: its files, spec and ledger, and the state of its trials.

The ledger records how a search trial ended. A finished trial that has lost rows (its directory was deleted, a file was
damaged) counts as interrupted: the next driver retrains the lost epochs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from gitdist.errors import StudyError, StudyLockedError
from gitdist.spec import StudySpec
from gitdist.study.compatibility import check_ledger_exists
from gitdist.study.files.events import Outcome, TrialStates
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import count_rows, read_rows
from gitdist.study.ledger.lease import Owner, describe_owner, read_owners
from gitdist.study.ledger.ledger import Ledger, TrialRecord
from gitdist.study.ledger.records import pareto_of

BASELINE_FAILURE = "baseline_failure"  # ledger attribute: why the baseline failed
GENERATOR = "generator"  # ledger attribute: name of the trained generator, see ``generator_name``


@dataclass(frozen=True)
class Study:
    """The files, the spec and the open ledger of a study."""

    paths: StudyPaths
    spec: StudySpec
    ledger: Ledger

    @classmethod
    @contextmanager
    def create(cls, paths: StudyPaths, spec: StudySpec) -> Iterator[Self]:
        """Open or create the ledger in order to run the study; close it at the end of the block."""
        ledger = Ledger.open(paths, spec)
        try:
            yield cls(paths, spec, ledger)
        finally:
            ledger.close()

    @classmethod
    @contextmanager
    def open(cls, paths: StudyPaths, spec: StudySpec) -> Iterator[Self]:
        """Open the ledger of a started study for reading; close it at the end of the block."""
        check_ledger_exists(paths, spec)
        if not Ledger.exists(paths, spec):
            raise StudyError(
                f"study '{paths.name}' in {paths.results} has not started any trial yet; `gitdist run` starts it"
            )
        ledger = Ledger.open(paths, spec, read_only=True)
        try:
            yield cls(paths, spec, ledger)
        finally:
            ledger.close()

    def trial_states(self) -> TrialStates:
        """Return the state of every trial that was ever started; the baseline starts before the other trials."""
        states: dict[TrialId, tuple[Mapping[str, Any], Outcome | None]] = {}
        records = self.ledger.trials()
        if self.paths.trial(BASELINE).exists() or (self.spec.baseline and records):
            states[BASELINE] = ({}, self._baseline_outcome())
        for record in records:
            states[TrialId("trial", record.number)] = (record.params, self._outcome(record))
        return states

    def num_epochs(self, params: Mapping[str, Any]) -> int:
        """Return the epochs of a complete trial, which may be a searched parameter."""
        return int(self.spec.changes(params).get("epochs", self.spec.trial.epochs))

    def num_lost_epochs(self, record: TrialRecord) -> int:
        """Return how many epochs of a finished trial have no readable row; 0 for a trial that has not finished."""
        if record.state != "finished":
            return 0
        num_rows = count_rows(self.paths.rows(TrialId("trial", record.number)))
        return max(0, self.num_epochs(record.params) - num_rows)

    def best_trials(self) -> list[TrialRecord]:
        """Return the Pareto front of the feasible finished points whose trials have all of their rows."""
        lossy = {record.number for record in self.ledger.trials() if self.num_lost_epochs(record)}
        complete = [point for point in self.ledger.points() if lossy.isdisjoint(point.numbers)]
        return pareto_of(complete, self.spec.search.directions)

    def feasible_trials(self) -> dict[int, bool]:
        """Return by number whether a trial meets the constraints of the search; of replicates, their means."""
        own = {record.number: record.feasible for record in self.ledger.trials()}
        return own | {number: point.feasible for point in self._finished_points() for number in point.numbers}

    def lacks_feasible_trial(self) -> bool:
        """Return whether trials have finished, but none of them meets the constraints of the search."""
        finished = self._finished_points()
        return bool(finished) and not any(point.feasible for point in finished)

    def is_baseline_trained(self) -> bool:
        """Return whether the study has a baseline that was trained to its last epoch."""
        if not self.spec.baseline:
            return False
        rows = read_rows(self.paths.rows(BASELINE))
        return bool(rows) and rows[-1].epoch == self.spec.trial.epochs

    def is_baseline_ended(self) -> bool:
        """Return whether the baseline has finished or failed, or the study has none."""
        return not self.spec.baseline or self._baseline_outcome() is not None

    def all_ended(self) -> bool:
        """Return whether all trials and the baseline have ended, and no finished trial has lost rows."""
        lost = any(self.num_lost_epochs(record) for record in self.ledger.trials())
        return not lost and not self.ledger.num_open() and self.is_baseline_ended()

    @staticmethod
    def exists(paths: StudyPaths, spec: StudySpec) -> bool:
        """Return whether the study has a ledger."""
        return Ledger.exists(paths, spec)

    def refuse_owner(self) -> None:
        """Refuse a study that a driver runs which is alive, or may be.

        Raises:
            StudyLockedError: there is one.
        """
        if (owner := self.owner()) is not None:
            raise StudyLockedError(describe_owner(self.ledger.name, owner), remedy="take_over")

    def owner(self) -> Owner | None:
        """Return the driver that owns the study now; None if no owner is known to be alive."""
        owners = read_owners(self.ledger.storage, self.ledger.name)
        return next((owner for owner in owners if owner.state in ("live", "unknown")), None)

    def _finished_points(self) -> list[TrialRecord]:
        return [point for point in self.ledger.points() if point.state == "finished"]

    def _outcome(self, record: TrialRecord) -> Outcome | None:
        if record.state == "running":
            return None
        if lost := self.num_lost_epochs(record):
            epochs = self.num_epochs(record.params)
            return Outcome(
                "interrupted", reason=f"it finished, but {lost} of its {epochs} rows are lost; resume retrains them"
            )
        return Outcome(record.state, record.pruned_at, record.reason)

    def _baseline_outcome(self) -> Outcome | None:
        if self.is_baseline_trained():
            return Outcome("finished")
        failure = self.ledger.get_attr(BASELINE_FAILURE)
        return None if failure is None else Outcome("failed", reason=failure)
