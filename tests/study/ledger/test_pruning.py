import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.errors import SpecError, StudyError
from gitdist.spec import SearchSpec
from gitdist.study.ledger.pruning import DECISION, build_pruner, check_pruner, should_prune

EPOCHS = 12


def curve(number: int) -> list[float]:
    """A trial's objective by epoch; every third one falls."""
    return [(number * 7 % 10) / 10 + 0.01 * epoch * (-1 if number % 3 == 0 else 1) for epoch in range(1, EPOCHS + 1)]


def optunas_own(search: SearchSpec, num_trials: int) -> list[tuple[TrialState, int]]:
    """What a plain Optuna study does: the state and last epoch of every trial."""
    pruner = build_pruner(search.pruner, EPOCHS)
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


class EveryThird(BasePruner):
    """A user's pruner: ends every third trial after an epoch that is an option."""

    def __init__(self, after: int) -> None:
        self._after = after

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return trial.number % 3 == 2 and (trial.last_step or 0) >= self._after


CASES = {
    "successive-halving": {"kind": "successive-halving", "min_epochs": 2, "reduction_factor": 2},
    "hyperband": {"kind": "hyperband", "min_epochs": 2, "reduction_factor": 2},
    "median": {"kind": "median", "min_epochs": 2},
    "percentile": {"kind": "percentile", "min_epochs": 2, "percentile": 60},
    "patient": {"kind": "patient", "patience": 2, "options": {"min_delta": 0.01}},
    "patient median": {"kind": "patient", "patience": 2, "wraps": "median"},
    "threshold": {"kind": "threshold", "min_epochs": 2, "lower": 0.3},
    "threshold above": {"kind": "threshold", "min_epochs": 2, "upper": 0.6},
    "user's": {"kind": f"{__name__}:EveryThird", "options": {"after": 4}},
    "Optuna's by name": {
        "kind": "optuna.pruners:SuccessiveHalvingPruner",
        "options": {"min_resource": 3, "reduction_factor": 2},
    },
}


@pytest.mark.parametrize("objective", ["val/balanced_accuracy", "val/ekld"])
@pytest.mark.parametrize("case", CASES)
def test_trials_end_where_a_plain_optuna_study_ends_them(case, objective):
    search = SearchSpec(objective=objective, pruner=CASES[case])
    expected = optunas_own(search, 20)
    assert pruned_by_us(search, 20) == expected
    assert TrialState.PRUNED in {state for state, _ in expected}


@pytest.mark.parametrize("case", CASES)
def test_every_pruner_passes_the_check_before_a_study_begins(case):
    check_pruner(SearchSpec(pruner=CASES[case]), EPOCHS)


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


class Broken(EveryThird):
    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        return {}["missing"]


@pytest.mark.parametrize(
    ("pruner", "error", "word"),
    [
        ({"kind": f"{__name__}:EveryThird"}, SpecError, "after"),
        ({"kind": f"{__name__}:Missing"}, SpecError, "Missing"),
        ({"kind": f"{__name__}:curve", "options": {"number": 1}}, SpecError, "list"),
        ({"kind": "median", "options": {"n_wormup_steps": 1}}, SpecError, "n_wormup_steps"),
        ({"kind": "threshold", "lower": 2, "upper": 1}, SpecError, "lower"),
        ({"kind": f"{__name__}:Broken", "options": {"after": 1}}, StudyError, "KeyError"),
    ],
)
def test_a_pruner_that_does_not_work_is_one_line(pruner, error, word):
    with pytest.raises(error, match=word) as caught:
        pruned_by_us(SearchSpec(pruner=pruner), 1)
    assert "\n" not in str(caught.value) and pruner["kind"] in str(caught.value)
