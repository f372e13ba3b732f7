"""A search trial as the ledger stores it, and the choice of the best trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

REASON = "gitdist.reason"  # attributes of a trial in the Optuna storage: why it failed
MLFLOW_RUN = "mlflow.run_id"  # id of its run in MLflow
VIOLATES = "violates"  # constraints in words: optuna-dashboard 0.21 shows no constraints of Optuna 5
RETRY_OF = "gitdist.retry_of"  # number of the failed trial that it retries
REPEAT_OF = "gitdist.repeat_of"  # number of the finished trial with the same training, whose result it reuses
FIXED = "fixed_params"  # Optuna's own, a system attribute: the values with which the trial was enqueued
CONSTRAINT = "constraints:"  # Optuna's own, likewise: prefix of the names of a trial's violations of constraints
REPLICATE_OF = "gitdist.replicate_of"  # number of another trial with the same training; both are trained

State = Literal["running", "finished", "failed", "pruned"]
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}


@dataclass(frozen=True)
class TrialRecord:
    """A search trial as the ledger stores it; see ``REPEAT_OF`` and ``REPLICATE_OF`` for the links to others."""

    number: int
    params: Mapping[str, Any]
    state: State
    objectives: tuple[float, ...] = ()  # of a finished trial
    reason: str | None = None  # of a failed one
    curve: Mapping[int, float] = field(default_factory=dict)  # the first objective by epoch
    retry_of: int | None = None
    pruned_at: int | None = None  # epoch
    repeat_of: int | None = None
    replicate_of: int | None = None
    feasible: bool = True  # false if it violates a constraint of the search
    replicates: tuple[int, ...] = ()  # numbers of the trials whose means the objectives are, see ``points``

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the trials that have the objectives: several, or its own."""
        return self.replicates or (self.number,)

    @property
    def links(self) -> dict[str, int]:
        """``repeat_of`` or ``replicate_of`` if the trial has one of them."""
        links = {"repeat_of": self.repeat_of, "replicate_of": self.replicate_of}
        return {name: number for name, number in links.items() if number is not None}

    @property
    def value(self) -> float | None:
        """The first objective of a finished trial."""
        return self.objectives[0] if self.objectives else None


def read_record(trial: FrozenTrial, switch_epoch: int) -> TrialRecord:
    """Return the record of an Optuna trial, whose step 1 is the first epoch after ``switch_epoch``."""
    state = _STATES[trial.state]
    curve = {step + switch_epoch: value for step, value in sorted(trial.intermediate_values.items())}
    return TrialRecord(
        number=trial.number,
        params={**trial.system_attrs.get(FIXED, {}), **trial.params},
        state=state,
        objectives=tuple(trial.values) if state == "finished" else (),
        reason=trial.user_attrs.get(REASON) if state == "failed" else None,
        curve=curve,
        retry_of=trial.user_attrs.get(RETRY_OF),
        pruned_at=max(curve, default=None) if state == "pruned" else None,
        repeat_of=trial.user_attrs.get(REPEAT_OF),
        replicate_of=trial.user_attrs.get(REPLICATE_OF),
        feasible=all(violation <= 0 for violation in trial.constraints.values()),
    )


def list_trials(trials: Sequence[object]) -> str:
    """Return numbers of trials for reading: ``trial 3``, ``trials 3, 5``."""
    return f"trial{'s' if len(trials) > 1 else ''} {', '.join(map(str, trials))}"


def best_of(records: Sequence[TrialRecord], directions: Sequence[str]) -> TrialRecord | None:
    """Return the feasible finished trial with the best first objective; the earliest if several are equal."""
    finished = [record for record in records if record.state == "finished" and record.feasible]
    return min(finished, key=lambda record: (costs_of(record, directions)[0], record.number), default=None)


def pareto_of(records: Sequence[TrialRecord], directions: Sequence[str]) -> list[TrialRecord]:
    """Return the Pareto front of the feasible finished trials by number; for one objective the best trial alone.

    A trial that repeats one of ``records`` is left out.
    """
    if len(directions) == 1:
        best = best_of(records, directions)
        return [best] if best else []
    finished = {record.number: record for record in records if record.state == "finished" and record.feasible}
    costs = {
        number: costs_of(record, directions) for number, record in finished.items() if record.repeat_of not in finished
    }
    return [
        record
        for record in records
        if record.number in costs and not any(dominates(other, costs[record.number]) for other in costs.values())
    ]


def costs_of(record: TrialRecord, directions: Sequence[str]) -> list[float]:
    """Return the objectives of a finished trial with the sign for which less is better."""
    return [-x if direction == "maximize" else x for x, direction in zip(record.objectives, directions, strict=True)]


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether the costs of one trial are at most those of another in every objective, and less in some."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
