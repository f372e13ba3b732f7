"""The pruners: decide whether a trial ends early, as a pure function of all trials' epochs so far.

Optuna's pruners store the rungs that a trial has reached as attributes of that trial. Here a pruner works on a study in
memory and its attributes are returned, so that the ledger stores them together with the decision.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.spec import PrunerSpec, SearchSpec

DECISION = "gitdist.pruner"  # attribute of a trial: the last decision about it, as {step, prune, attrs}

PRUNERS: Mapping[str, Callable[[PrunerSpec, int], BasePruner]] = {
    "none": lambda spec, num_steps: NopPruner(),
    "successive-halving": lambda spec, num_steps: SuccessiveHalvingPruner(
        min_resource=spec.min_epochs, reduction_factor=spec.reduction_factor
    ),
    "hyperband": lambda spec, num_steps: HyperbandPruner(
        min_resource=spec.min_epochs, max_resource=num_steps, reduction_factor=spec.reduction_factor
    ),
    "median": lambda spec, num_steps: MedianPruner(n_startup_trials=spec.startup, n_warmup_steps=spec.min_epochs),
}
"""Optuna's pruners by ``search.pruner.kind``; ``num_steps`` are the epochs of a complete trial after the switch."""


def should_prune(
    search: SearchSpec, study_name: str, trials: Sequence[FrozenTrial], number: int, num_steps: int
) -> tuple[bool, dict[str, Any]]:
    """Return whether trial ``number`` ends after its last reported epoch, and the rungs that it has reached."""
    step = trials[number].last_step
    pruner = PRUNERS[search.pruner.kind](search.pruner, num_steps)
    study = optuna.create_study(study_name=study_name, directions=search.directions, pruner=pruner)
    study.add_trials(_visible_to_pruner(trial, None if trial.number == number else step) for trial in trials)
    prune = bool(pruner.prune(study, study.get_trials(deepcopy=False)[number]))  # JSON has no NumPy bool
    return prune, dict(study.get_trials(deepcopy=False)[number].system_attrs)


def _visible_to_pruner(trial: FrozenTrial, step: int | None) -> FrozenTrial:
    """Return only what pruners read of a trial: state, rungs, and its value at ``step`` (None: all its values)."""
    curve = trial.intermediate_values
    return create_trial(
        state=trial.state,
        values=trial.values if trial.state == TrialState.COMPLETE else None,
        system_attrs=trial.user_attrs.get(DECISION, {}).get("attrs", {}),
        intermediate_values=curve if step is None else {step: curve[step]} if step in curve else {},
    )
