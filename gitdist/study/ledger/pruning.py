"""The pruners: decide whether a trial ends early, as a pure function of all trials' epochs so far.

Optuna's pruners store the rungs that a trial has reached as attributes of that trial. Here a pruner works on a study in
memory and its attributes are returned, so that the ledger stores them together with the decision.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PatientPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    ThresholdPruner,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.errors import StudyError
from gitdist.plugins import describe_raised
from gitdist.spec import PrunerSpec, SearchSpec
from gitdist.study.ledger.optuna_parts import build_part

_CHECKED_TRIALS, _CHECKED_STEPS = 3, 3
DECISION = "gitdist.pruner"  # attribute of a trial: the last decision about it, as {step, prune, attrs}

PRUNERS: Mapping[str, tuple[Callable[..., BasePruner], Callable[[PrunerSpec, int], dict[str, Any]]]] = {
    "none": (NopPruner, lambda spec, num_steps: {}),
    "median": (
        MedianPruner,
        lambda spec, num_steps: {"n_startup_trials": spec.startup, "n_warmup_steps": spec.min_epochs},
    ),
    "percentile": (
        PercentilePruner,
        lambda spec, num_steps: {
            "percentile": spec.percentile,
            "n_startup_trials": spec.startup,
            "n_warmup_steps": spec.min_epochs,
        },
    ),
    "successive-halving": (
        SuccessiveHalvingPruner,
        lambda spec, num_steps: {"min_resource": spec.min_epochs, "reduction_factor": spec.reduction_factor},
    ),
    "hyperband": (
        HyperbandPruner,
        lambda spec, num_steps: {
            "min_resource": spec.min_epochs,
            "max_resource": num_steps,
            "reduction_factor": spec.reduction_factor,
        },
    ),
    "patient": (
        PatientPruner,
        lambda spec, num_steps: {
            "wrapped_pruner": None if spec.wraps == "none" else build_pruner(_wrapped(spec), num_steps),
            "patience": spec.patience,
        },
    ),
    "threshold": (
        ThresholdPruner,
        lambda spec, num_steps: {"lower": spec.lower, "upper": spec.upper, "n_warmup_steps": spec.min_epochs},
    ),
}
"""Optuna's pruners by ``search.pruner.kind``, and our settings of them, which ``search.pruner.options`` override.

``num_steps`` are the epochs of a complete trial after the switch.
"""


def build_pruner(spec: PrunerSpec, num_steps: int) -> BasePruner:
    """Return a search's pruner.

    Raises:
        SpecError: the pruner of another package cannot be imported or built, or ``search.pruner.options`` do not fit.
    """
    known, settings = PRUNERS.get(spec.kind, (None, lambda spec, num_steps: {}))
    given = settings(spec, num_steps)
    base: type[BasePruner] = BasePruner  # type: ignore[type-abstract]
    pruner = build_part(base, "search.pruner.kind", spec.kind, known, spec.options, given)
    if isinstance(pruner, HyperbandPruner):  # divides its trials into brackets from the first decision on
        study = optuna.create_study(pruner=pruner)
        study.ask()
        pruner.prune(study, study.get_trials(deepcopy=False)[0])
    return pruner


def check_pruner(search: SearchSpec, num_steps: int) -> None:
    """Build the search's pruner, and let it decide about a few made-up trials.

    Raises:
        SpecError: as ``build_pruner``.
        StudyError: the pruner raises an error.
    """
    build_pruner(search.pruner, num_steps)
    eager = search.pruner.model_copy(update={"startup": 1, "min_epochs": 1})  # it decides about the first trials
    num_steps = min(num_steps, _CHECKED_STEPS)
    curve, values = dict.fromkeys(range(1, num_steps + 1), 0.0), [0.0] * len(search.objectives)
    trials = [create_trial(values=values, intermediate_values=curve) for _ in range(_CHECKED_TRIALS)]
    trials.append(create_trial(state=TrialState.RUNNING, intermediate_values=curve))
    for number, trial in enumerate(trials):
        trial.number = number
    should_prune(search.model_copy(update={"pruner": eager}), "study", trials, _CHECKED_TRIALS, num_steps)


def should_prune(
    search: SearchSpec, study_name: str, trials: Sequence[FrozenTrial], number: int, num_steps: int
) -> tuple[bool, dict[str, Any]]:
    """Return whether trial ``number`` ends after its last reported epoch, and the rungs that it has reached.

    Raises:
        SpecError: as ``build_pruner``.
        StudyError: the pruner raises an error.
    """
    step = trials[number].last_step
    pruner = build_pruner(search.pruner, num_steps)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(study_name=study_name, directions=search.directions, pruner=pruner)
    study.add_trials(_visible_to_pruner(trial, None if trial.number == number else step) for trial in trials)
    try:
        prune = bool(pruner.prune(study, study.get_trials(deepcopy=False)[number]))  # JSON has no NumPy bool
    except Exception as error:
        raise StudyError(
            f"search.pruner.kind '{search.pruner.kind}' raised {describe_raised(error)}; correct "
            "search.pruner.options, or choose another pruner"
        ) from error
    return prune, dict(study.get_trials(deepcopy=False)[number].system_attrs)


def _wrapped(spec: PrunerSpec) -> PrunerSpec:
    return spec.model_copy(update={"kind": spec.wraps, "options": {}})


def _visible_to_pruner(trial: FrozenTrial, last_step: int | None) -> FrozenTrial:
    """Return only what pruners read of a trial: state, rungs, and its values up to ``last_step`` (None: all)."""
    curve = trial.intermediate_values
    return create_trial(
        state=trial.state,
        values=trial.values if trial.state == TrialState.COMPLETE else None,
        system_attrs=trial.user_attrs.get(DECISION, {}).get("attrs", {}),
        intermediate_values={step: value for step, value in curve.items() if last_step is None or step <= last_step},
    )
