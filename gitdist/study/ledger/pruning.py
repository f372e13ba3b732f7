"""Whether a trial ends early: Optuna's pruners as a pure function of the trials' epochs so far.

A pruner keeps the rungs a trial has reached as attributes of that trial. Here it works on a study in memory, and the
attributes come back as a value, for the ledger to keep together with the decision.
"""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.spec import PrunerSpec, SearchSpec

DECISION = "gitdist.pruner"  # user attribute: the last decision about a trial, as {step, prune, attrs}


def judge(
    search: SearchSpec, study_name: str, trials: Sequence[FrozenTrial], number: int, num_steps: int
) -> tuple[bool, dict[str, Any]]:
    """Return whether trial ``number`` is to end after its last noted epoch, and the rungs that it has reached.

    Args:
        search: holds the pruner and the objective's direction.
        study_name: Hyperband deals trials into brackets by it.
        trials: all trials by number, as the ledger has them.
        number: the trial in question; it has noted an epoch.
        num_steps: epochs of a whole trial after the switch.
    """
    step = trials[number].last_step
    pruner = build_pruner(search.pruner, num_steps)
    study = optuna.create_study(study_name=study_name, directions=search.directions, pruner=pruner)
    study.add_trials(_known(trial, None if trial.number == number else step) for trial in trials)
    judged = study.get_trials(deepcopy=False)[number]
    prune = bool(pruner.prune(study, judged))  # of NumPy's, JSON knows no truth
    return prune, dict(study.get_trials(deepcopy=False)[number].system_attrs)


def build_pruner(spec: PrunerSpec, num_steps: int) -> BasePruner:
    """Return Optuna's pruner; its resource is epochs after the switch, of which a whole trial has ``num_steps``."""
    match spec.kind:
        case "successive-halving":
            return SuccessiveHalvingPruner(min_resource=spec.min_epochs, reduction_factor=spec.reduction_factor)
        case "hyperband":
            return HyperbandPruner(
                min_resource=spec.min_epochs, max_resource=num_steps, reduction_factor=spec.reduction_factor
            )
        case "median":
            return MedianPruner(n_startup_trials=spec.startup, n_warmup_steps=spec.min_epochs)
        case "none":
            return NopPruner()


def _known(trial: FrozenTrial, step: int | None) -> FrozenTrial:
    """Return a trial with no more than pruners read: state, rungs, and its value at ``step`` (None = at all)."""
    curve = trial.intermediate_values
    return create_trial(
        state=trial.state,
        values=trial.values if trial.state == TrialState.COMPLETE else None,
        system_attrs=trial.user_attrs.get(DECISION, {}).get("attrs", {}),
        intermediate_values=curve if step is None else {step: curve[step]} if step in curve else {},
    )
