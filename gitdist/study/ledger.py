"""The ledger: Optuna's storage, the only record of which search trials exist and how they ended.

Ray Tune executes what the ledger hands out. A trial that a killed driver left RUNNING is handed out again under its
own number before any new one is made.
"""

import math
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from gitdist.errors import StudyError, first_line
from gitdist.spec import OBJECTIVES, SearchSpec
from gitdist.study.space import build_sampler, distributions, grid_size

_REASON = "gitdist.reason"
_IDENTITY = "gitdist.identity"


@dataclass(frozen=True)
class TrialRecord:
    """A search trial as the ledger has it; ``state`` is one of running, finished, failed, pruned."""

    number: int
    params: Mapping[str, Any]
    state: str
    value: float | None = None
    reason: str | None = None
    values: Mapping[int, float] = field(default_factory=dict)  # the objective by epoch


_STATES = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}


class Ledger:
    """One study's trials in an Optuna storage. Owned by the driver; not for several threads at once."""

    def __init__(self, path: Path, study_name: str, search: SearchSpec) -> None:
        """Open or create the study in the SQLite file at ``path``.

        Raises:
            StudyError: the file is no Optuna storage.
        """
        self._search = search
        self._distributions = distributions(search.space)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            self._storage = optuna.storages.RDBStorage(
                f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=study_name,
                direction=OBJECTIVES[search.objective],
                load_if_exists=True,
            )
        except Exception as error:
            raise StudyError(f"the ledger {path} cannot be opened as an Optuna storage: {first_line(error)}") from error
        self._orphans = [record.number for record in self.trials() if record.state == "running"]

    @property
    def total(self) -> int:
        """The number of search trials the study ends with."""
        if self._search.algorithm == "grid":
            return min(self._search.total, grid_size(self._search.space))
        return self._search.total

    @property
    def identity(self) -> str:
        """A name no other study has, kept in the ledger: a study begun anew under an old name is another one."""
        attributes = self._study.user_attrs
        if _IDENTITY not in attributes:
            self._study.set_user_attr(_IDENTITY, uuid.uuid4().hex)
        return str(self._study.user_attrs[_IDENTITY])

    def num_open(self) -> int:
        """Return how many trials have not ended: still to be handed out, or running."""
        records = self.trials()
        return max(0, self.total - len(records)) + sum(record.state == "running" for record in records)

    def trials(self) -> list[TrialRecord]:
        """Return all search trials by number."""
        return [_record(trial) for trial in self._study.get_trials(deepcopy=False)]

    def next_trial(self) -> TrialRecord | None:
        """Hand out a trial: one that a dead driver left, else a new proposal, else None when all exist."""
        if self._orphans:
            return self.trials()[self._orphans.pop(0)]
        number = len(self.trials())
        if number >= self.total:
            return None
        trial = self._propose(number)
        return TrialRecord(trial.number, trial.params, "running")

    def record_epoch(self, number: int, epoch: int, value: float) -> None:
        """Note the objective after an epoch (a second note of the same epoch changes nothing)."""
        trial = optuna.Trial(self._study, self._id(number))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Optuna warns of the second note
            trial.report(value, epoch)

    def finish(self, number: int, value: float | None) -> None:
        """End a trial with its objective; without a finite one it is failed. Ending twice changes nothing."""
        if value is None or not math.isfinite(value):
            self.fail(number, f"the objective {self._search.objective} is {value}")
            return
        self._study.tell(number, value, skip_if_finished=True)

    def fail(self, number: int, reason: str) -> None:
        """End a trial as failed, with the reason. Ending twice changes nothing."""
        if self.trials()[number].state == "running":
            self._storage.set_trial_user_attr(self._id(number), _REASON, reason)
            self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def best(self) -> TrialRecord | None:
        """Return the finished trial with the best objective; the earlier one of equals."""
        finished = [record for record in self.trials() if record.state == "finished" and record.value is not None]
        sign = -1 if OBJECTIVES[self._search.objective] == "maximize" else 1
        return min(finished, key=lambda record: (sign * (record.value or 0.0), record.number), default=None)

    def close(self) -> None:
        """Release the storage's connections."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def _propose(self, number: int) -> optuna.Trial:
        with warnings.catch_warnings():
            # multivariate and constant_liar are marked experimental; nothing else is silenced here
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = build_sampler(self._search, number)
            try:
                return self._study.ask(fixed_distributions=self._distributions)
            finally:
                # Told of the end of a trial, a grid sampler would try to stop a loop that does not exist here.
                self._study.sampler = optuna.samplers.RandomSampler()

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)


def _record(trial: FrozenTrial) -> TrialRecord:
    state = _STATES[trial.state]
    value = trial.value if state == "finished" else None
    return TrialRecord(
        trial.number, trial.params, state, value, trial.user_attrs.get(_REASON), dict(trial.intermediate_values)
    )
