"""A search whose points are trained several times, with other seeds."""

import optuna
import pytest
from optuna.storages import InMemoryStorage

from gitdist.errors import SpecError
from gitdist.spec.file import parse_study
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.records import TrialRecord

ACCURACY = "val/balanced_accuracy"
SEEDS = (5, 6, 7)


def spec_of(**search):
    fields = {"total": 8, "startup": 2, "seed": 3, "replicates": 3, "space": {"fraction": {"float": [0.1, 0.9]}}}
    return parse_study({"name": "study", "trial": {"seed": 5}, "search": {**fields, **search}}, "the test")


def open_ledger(storage, **search) -> Ledger:
    spec = spec_of(**search)
    return Ledger(storage, "study", spec.search, seeds=spec.replicate_seeds)


def value(params) -> float:
    return -((params["fraction"] - 0.6) ** 2) + 0.01 * (params["seed"] - 6)


def metrics_of(record: TrialRecord) -> dict[str, float]:
    return {ACCURACY: value(record.params), "val/few_accuracy": record.params["seed"] / 10}


def drain(ledger: Ledger, count: int = 1000) -> list[TrialRecord]:
    records = []
    while len(records) < count and (record := ledger.next_trial()) is not None:
        records.append(record)
        ledger.finish(record.number, metrics_of(record))
    return records


def test_each_point_has_a_trial_with_each_seed():
    ledger = open_ledger(InMemoryStorage())
    assert (ledger.total, ledger.num_open()) == (24, 24)
    records = drain(ledger)
    assert [record.params["seed"] for record in records] == [*SEEDS] * 8
    for first in range(0, 24, 3):
        assert len({record.params["fraction"] for record in records[first : first + 3]}) == 1
    assert (ledger.total, ledger.num_open()) == (24, 0)


@pytest.mark.parametrize("reopened", [False, True])
def test_the_sampler_reads_the_means(reopened):
    storage, found = InMemoryStorage(), []
    ledger = open_ledger(storage)
    while record := next(iter(drain(ledger, 1)), None):
        found.append(record.params["fraction"])
        ledger = open_ledger(storage) if reopened else ledger
    plain = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=3, n_startup_trials=2, multivariate=True, constant_liar=True),
    )
    for _ in range(8):
        trial = plain.ask()
        fraction = trial.suggest_float("fraction", 0.1, 0.9)
        plain.tell(trial, sum(value({"fraction": fraction, "seed": seed}) for seed in SEEDS) / 3)
    assert found[::3] == [trial.params["fraction"] for trial in plain.trials]


def test_the_best_point_has_the_best_mean():
    ledger = open_ledger(InMemoryStorage(), total=2, try_first=[{"fraction": 0.5}, {"fraction": 0.9}])
    for accuracy in (0.4, 0.4, 0.4, 0.1, 0.1, 0.9):
        ledger.finish(ledger.next_trial().number, {ACCURACY: accuracy})
    best = ledger.best()
    assert (best.number, best.replicates) == (0, (0, 1, 2))
    assert best.objectives == (pytest.approx(0.4),)
    assert best.params == {"fraction": 0.5, "seed": 5}
    assert [point.objectives for point in ledger.points()] == [(pytest.approx(0.4),), (pytest.approx(1.1 / 3),)]


def test_a_point_with_a_failed_trial_fails_until_that_is_retried():
    ledger = open_ledger(InMemoryStorage(), total=1)
    for number in range(3):
        record = ledger.next_trial()
        if number == 1:
            ledger.fail(record.number, "for the test")
        else:
            ledger.finish(record.number, metrics_of(record))
    assert ledger.next_trial() is None and ledger.best() is None
    assert [(point.state, point.reason) for point in ledger.points()] == [("failed", "for the test")]
    assert ledger.retry_failed() == [(1, 3)]
    assert [record.params["seed"] for record in drain(ledger)] == [6]
    assert ledger.best().replicates == (0, 3, 2)
    assert ledger.total == 4


def test_the_retry_of_a_points_first_trial_stands_for_it():
    ledger = open_ledger(InMemoryStorage(), total=1)
    ledger.fail(ledger.next_trial().number, "for the test")
    drain(ledger)
    assert ledger.retry_failed() == [(0, 3)]
    drain(ledger)
    assert (ledger.best().number, ledger.best().replicates) == (3, (3, 1, 2))


def test_each_trial_of_a_point_may_repeat_another():
    def link(params, records):
        same = [record.number for record in records if record.params["seed"] == params["seed"]]
        return {"repeat_of": same[0]} if same else {}

    ledger = open_ledger(InMemoryStorage(), total=2)
    while (record := ledger.next_trial(link)) is not None:
        ledger.finish(record.number, metrics_of(record))
    assert [record.repeat_of for record in ledger.trials()] == [None, None, None, 0, 1, 2]


def test_constraints_and_stop_rules_are_of_points():
    ledger = open_ledger(InMemoryStorage(), constraints=["few_accuracy >= 0.55"], patience=2)
    drain(ledger)
    assert all(point.feasible for point in ledger.points())  # although the trials with seed 5 violate it
    assert [record.feasible for record in ledger.trials()[:3]] == [False, True, True]
    values = [point.objectives[0] for point in ledger.points()]
    best = values.index(max(values))
    assert len(values) == 8 or len(values) - 1 - best == 2
    assert len(ledger.trials()) == 3 * len(values)


def test_an_enqueued_point_has_replicates():
    storage = InMemoryStorage()
    ledger = open_ledger(storage, total=1)
    optuna.load_study(study_name="study", storage=storage).enqueue_trial({"fraction": 0.25})
    assert ledger.total == ledger.num_open() == 6
    assert [record.params["fraction"] for record in drain(ledger)[:3]] == [0.25] * 3
    assert len(ledger.trials()) == ledger.total == 6


def test_a_point_that_is_refused_has_no_replicates_and_delays_none():
    storage = InMemoryStorage()
    ledger = open_ledger(storage, total=1, lag=1)
    optuna.load_study(study_name="study", storage=storage).enqueue_trial({"fraction": 5.0})
    assert [record.params["seed"] for record in drain(ledger)] == [*SEEDS]
    assert [point.state for point in ledger.points()] == ["failed", "finished"]
    assert (ledger.total, ledger.num_open()) == (4, 0)


def test_several_trials_of_a_point_run_at_once_and_with_a_lag_the_next_point_waits():
    ledger = open_ledger(InMemoryStorage(), lag=1)
    running = [ledger.next_trial() for _ in range(3)]
    assert [record.params["seed"] for record in running] == [*SEEDS]
    assert ledger.next_trial() is None
    for record in running[::-1]:
        ledger.finish(record.number, metrics_of(record))
    assert ledger.next_trial().number == 3


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"search": {"replicates": 2, "space": {"seed": {"choice": [1, 2]}}}}, "space.seed"),
        ({"search": {"replicates": 2, "pruner": {"kind": "median"}}}, "median"),
        ({"search": {"replicates": 2}, "methods": {"a": {"seed": 3}}}, "methods.a"),
        ({"search": {"replicates": 2}, "trial": {"seed": 2**63 - 1}}, "trial.seed"),
    ],
)
def test_what_does_not_go_together_is_refused(fields, word):
    with pytest.raises(SpecError, match=word):
        parse_study({"name": "study", **fields}, "the test")
