"""Constraints of a search: what the ledger stores, and that Optuna and the choice of the best trial agree on it."""

import optuna
import pytest
from optuna.storages import InMemoryStorage

from gitdist.spec import Dimension, SearchSpec
from gitdist.study.ledger.ledger import Ledger

ACCURACY, FEW, EKLD = "val/balanced_accuracy", "val/few_accuracy", "val/ekld"
SPACE = {"fraction": Dimension(float=(0.0, 1.0))}


def ledger_of(storage=None, **search) -> Ledger:
    fields = {"total": 12, "algorithm": "random", "space": SPACE, **search}
    return Ledger(storage or InMemoryStorage(), "study", SearchSpec.model_validate(fields), epochs=9)


def metrics_of(params) -> dict[str, float]:
    p = params["fraction"]
    return {ACCURACY: p, FEW: 1 - p, EKLD: p**2}


def drain(ledger: Ledger) -> None:
    while (record := ledger.next_trial()) is not None:
        ledger.finish(record.number, metrics_of(record.params))


def optunas_study(ledger: Ledger) -> optuna.Study:
    return optuna.load_study(storage=ledger.storage, study_name="study")


@pytest.mark.parametrize("objective", [ACCURACY, [ACCURACY, FEW]])
def test_the_best_trials_are_those_of_optuna(objective):
    ledger = ledger_of(objective=objective, constraints=["few_accuracy >= 0.5", "val/ekld <= 0.1"])
    drain(ledger)
    study = optunas_study(ledger)
    for record, trial in zip(ledger.trials(), study.trials, strict=True):
        p = record.params["fraction"]
        assert trial.constraints == {
            "val/few_accuracy >= 0.5": pytest.approx(p - 0.5),
            "val/ekld <= 0.1": pytest.approx(p**2 - 0.1),
        }
        assert record.feasible == (p <= 0.5 and p**2 <= 0.1)
    assert {record.feasible for record in ledger.trials()} == {True, False}
    assert [record.number for record in ledger.pareto()] == sorted(trial.number for trial in study.best_trials)
    if objective == ACCURACY:
        assert ledger.best().number == study.best_trial.number


def test_without_a_feasible_trial_there_is_no_best_one():
    ledger = ledger_of(total=3, constraints=["ekld <= 0", "few_accuracy >= 1"])
    drain(ledger)
    assert {record.state for record in ledger.trials()} == {"finished"}
    assert (ledger.best(), ledger.pareto(), ledger.num_open()) == (None, [], 0)
    with pytest.raises(ValueError, match="No feasible trials"):
        optunas_study(ledger).best_trial  # noqa: B018


@pytest.mark.parametrize(("metrics", "reason"), [({}, "missing"), ({EKLD: float("nan")}, "nan")])
def test_a_trial_without_a_constrained_metric_fails_with_its_name(metrics, reason):
    ledger = ledger_of(constraints=["ekld <= 0.5"])
    ledger.next_trial()
    ledger.finish(0, {ACCURACY: 0.5, **metrics})
    (record,) = ledger.trials()
    assert (record.state, record.reason) == ("failed", f"the constraint on {EKLD} is {reason}")


def test_a_pruned_trial_has_the_violations_of_its_last_epoch():
    ledger = ledger_of(constraints=["ekld <= 0.5"], pruner={"kind": "median", "min_epochs": 2, "startup": 1})
    for number, value in enumerate((0.9, 0.1)):
        ledger.next_trial()
        for epoch in (1, 2):
            if ledger.report(number, epoch, {ACCURACY: value, EKLD: 1 / (1 + epoch)}):
                break
        else:
            ledger.finish(number, {ACCURACY: value, EKLD: 0.25})
    finished, pruned = optunas_study(ledger).trials
    assert (finished.state.name, pruned.state.name, pruned.last_step) == ("COMPLETE", "PRUNED", 2)
    assert finished.constraints == {"val/ekld <= 0.5": -0.25}
    assert pruned.constraints == {"val/ekld <= 0.5": pytest.approx(1 / 3 - 0.5)}
    assert pruned.user_attrs[EKLD] == pytest.approx(1 / 3)


def test_a_driver_that_was_killed_before_the_end_writes_the_same():
    storage = InMemoryStorage()
    first = ledger_of(storage, constraints=["ekld <= 0.5"])
    first.next_trial()
    first._store_metrics(first._trials()[0], {ACCURACY: 0.5, EKLD: 0.4})
    again = ledger_of(storage, constraints=["ekld <= 0.5"])
    again.finish(again.next_trial().number, {ACCURACY: 0.5, EKLD: 0.4})
    (trial,) = optunas_study(again).trials
    assert trial.constraints == {"val/ekld <= 0.5": pytest.approx(-0.1)}
    assert trial.user_attrs == {ACCURACY: 0.5, EKLD: 0.4}
