from typing import get_args

import optuna
import pytest
from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.spec import PrunerSpec, SearchSpec
from gitdist.study.ledger.pruning import DECISION, PRUNERS, should_prune

EPOCHS = 12


def curve(number: int) -> list[float]:
    """A trial's objective by epoch; which trial leads does not depend on the epoch."""
    return [(number * 7 % 10) / 10 + 0.01 * epoch for epoch in range(1, EPOCHS + 1)]


def optunas_own(search: SearchSpec, num_trials: int) -> list[tuple[TrialState, int]]:
    """What a plain Optuna study does: the state and last epoch of every trial."""
    pruner = PRUNERS[search.pruner.kind](search.pruner, EPOCHS)
    study = optuna.create_study(study_name="study", directions=search.directions, pruner=pruner)

    def objective(trial: optuna.Trial) -> float:
        values = curve(trial.number)
        for step, value in enumerate(values, start=1):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return values[-1]

    study.optimize(objective, n_trials=num_trials)
    return [(trial.state, trial.last_step) for trial in study.trials]


def pruned_by_us(search: SearchSpec, num_trials: int) -> list[tuple[TrialState, int]]:
    """The same by ``should_prune``."""
    trials: list[FrozenTrial] = []
    for number in range(num_trials):
        reported, attrs, state = {}, {}, TrialState.COMPLETE
        for step, value in enumerate(curve(number), start=1):
            reported[step] = value
            running = create_trial(
                state=TrialState.RUNNING, intermediate_values=dict(reported), user_attrs={DECISION: {"attrs": attrs}}
            )
            running.number = number
            prune, attrs = should_prune(search, "study", [*trials, running], number, EPOCHS)
            if prune:
                state = TrialState.PRUNED
                break
        trial = create_trial(
            state=state, value=value, intermediate_values=dict(reported), user_attrs={DECISION: {"attrs": attrs}}
        )
        trial.number = number
        trials.append(trial)
    return [(trial.state, trial.last_step) for trial in trials]


@pytest.mark.parametrize("objective", ["val/balanced_accuracy", "val/ekld"])
@pytest.mark.parametrize("kind", ["successive-halving", "hyperband", "median"])
def test_trials_end_where_a_plain_optuna_study_ends_them(kind, objective):
    search = SearchSpec(objective=objective, pruner={"kind": kind, "min_epochs": 2, "reduction_factor": 2})
    expected = optunas_own(search, 20)
    assert pruned_by_us(search, 20) == expected
    assert {state for state, _ in expected} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_without_a_pruner_no_trial_ends_early():
    assert set(pruned_by_us(SearchSpec(), 5)) == {(TrialState.COMPLETE, EPOCHS)}


@pytest.mark.parametrize("kind", ["successive-halving", "hyperband", "median"])
def test_a_decision_changes_no_trial(kind):
    search = SearchSpec(pruner={"kind": kind, "min_epochs": 1, "reduction_factor": 2, "startup": 1})
    trials = [
        create_trial(
            value=0.9, intermediate_values={1: 0.9}, user_attrs={DECISION: {"attrs": {"completed_rung_0": 0.9}}}
        ),
        create_trial(state=TrialState.RUNNING, intermediate_values={1: 0.1}),
    ]
    for number, trial in enumerate(trials):
        trial.number = number
    first = should_prune(search, "study", trials, 1, EPOCHS)
    assert should_prune(search, "study", trials, 1, EPOCHS) == first
    assert trials[1].system_attrs == {} and trials[1].user_attrs == {}


@pytest.mark.parametrize(
    ("kind", "pruner"),
    [
        ("none", NopPruner),
        ("successive-halving", SuccessiveHalvingPruner),
        ("hyperband", HyperbandPruner),
        ("median", MedianPruner),
    ],
)
def test_every_kind_is_optunas_pruner_of_that_name(kind, pruner):
    assert type(PRUNERS[kind](PrunerSpec(kind=kind), EPOCHS)) is pruner


def test_the_table_has_the_pruners_of_the_spec_and_an_unknown_name_raises():
    assert set(PRUNERS) == set(get_args(PrunerSpec.model_fields["kind"].annotation))
    search = SearchSpec().model_copy(update={"pruner": PrunerSpec().model_copy(update={"kind": "asha"})})
    with pytest.raises(KeyError, match="asha"):
        pruned_by_us(search, 1)
