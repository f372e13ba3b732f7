"""The stop rules of a search: which trials end it, in whatever order they end, and what a resumed study does."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from gitdist.spec import Dimension, SearchSpec
from gitdist.study.ledger.lease import HEARTBEAT, OWNER, add_record, get_or_create_records
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.records import TrialRecord
from gitdist.study.ledger.stopping import find_stop

ACCURACY, EKLD = "val/balanced_accuracy", "val/ekld"
SPACE = {"fraction": Dimension(float=(0.0, 1.0))}
CURVE = (0.5, 0.4, 0.6, 0.6, 0.1, 0.7, 0.2, 0.3, 0.1, 0.9)  # the first objective by number


def search(**fields) -> SearchSpec:
    return SearchSpec.model_validate({"total": len(CURVE), "algorithm": "random", "space": SPACE, **fields})


def finished(*values, number: int = 0, feasible: bool = True) -> TrialRecord:
    return TrialRecord(number, {}, "finished", objectives=values, feasible=feasible)


def first_stop(spec: SearchSpec, records: list[TrialRecord]) -> tuple[int, str] | None:
    """The number of trials after which a serial search stops, and the rule."""
    for count in range(len(records) + 1):
        if stop := find_stop(spec, records[:count], 0.0):
            return count, stop.rule
    return None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"patience": 2}, (5, "patience")),  # an equal one is not better
        ({"patience": 3}, (9, "patience")),
        ({"patience": 4}, None),
        ({"target": 0.7}, (6, "target")),
        ({"target": 0.95}, None),
        ({"target": 0.6, "patience": 2}, (3, "target")),
        ({"target": 0.2, "objective": "val/ekld"}, (5, "target")),
        ({"patience": 4, "objective": "val/ekld"}, (9, "patience")),
        ({"patience": 2, "lag": 3}, (7, "patience")),  # trials 3 and 4 are read before trial 7
    ],
)
def test_a_search_ends_with_the_first_rule_that_holds(fields, expected):
    assert first_stop(search(**fields), [finished(value, number=i) for i, value in enumerate(CURVE)]) == expected


def test_the_patience_with_several_objectives_is_that_with_the_pareto_front():
    spec = search(objective=[ACCURACY, EKLD], patience=2)
    values = [(0.5, 0.5), (0.4, 0.6), (0.6, 0.7), (0.5, 0.5), (0.4, 0.3), (0.3, 0.4), (0.5, 0.6), (0.9, 0.1)]
    records = [finished(*each, number=number) for number, each in enumerate(values)]
    assert first_stop(spec, records) == (7, "patience")


def test_only_feasible_trials_are_better_and_failed_ones_do_not_count():
    spec = search(patience=3, target=0.8)
    failed, pruned = TrialRecord(0, {}, "failed"), TrialRecord(0, {}, "pruned")
    records = [finished(0.5), failed, finished(0.9, feasible=False), failed, pruned, finished(0.4)]
    assert first_stop(spec, records) == (6, "patience")
    assert first_stop(spec, [finished(0.9, feasible=False)] * 3) == (3, "patience")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fields", [{"patience": 2}, {"target": 0.7}])
def test_trials_that_end_in_another_order_stop_the_search_by_the_same_rule(seed, fields):
    """With four trials at once, more may have been started."""
    draw, ledger = random.Random(seed), Ledger(InMemoryStorage(), "study", search(**fields))
    expected = first_stop(search(**fields), [finished(value) for value in CURVE])
    running: list[int] = []
    while True:
        while len(running) < 4 and (record := ledger.next_trial()) is not None:
            running.append(record.number)
        if not running:
            break
        number = running.pop(draw.randrange(len(running)))
        ledger.finish(number, {ACCURACY: CURVE[number]})
    stop = ledger.stop()
    assert (ledger.num_open(), ledger.total) == (0, len(ledger.trials()))
    if len(ledger.trials()) == len(CURVE):  # it was the last trial that the rule was waiting for
        assert stop is None
    else:
        assert expected[0] <= ledger.total
        assert stop.rule == expected[1]


@pytest.mark.parametrize("lag", [2, 4])
def test_with_a_lag_a_search_ends_after_the_same_trial(lag):
    spec = search(patience=2, lag=lag)
    expected = first_stop(spec, [finished(value) for value in CURVE])
    for seed in range(4):
        draw, ledger, running = random.Random(seed), Ledger(InMemoryStorage(), "study", spec), []
        while running or ledger.num_open():
            while len(running) < lag and (record := ledger.next_trial()) is not None:
                running.append(record.number)
            number = running.pop(draw.randrange(len(running)))
            ledger.finish(number, {ACCURACY: CURVE[number]})
        assert (ledger.total, ledger.stop().rule) == expected


def drain(ledger: Ledger) -> int:
    count = 0
    while (record := ledger.next_trial()) is not None:
        ledger.finish(record.number, {ACCURACY: CURVE[record.number]})
        count += 1
    return count


def test_a_resumed_study_stops_at_the_same_place_and_a_looser_rule_continues_it():
    storage = InMemoryStorage()
    interrupted = Ledger(storage, "study", search(patience=2))
    interrupted.finish(interrupted.next_trial().number, {ACCURACY: CURVE[0]})
    interrupted.next_trial()
    again = Ledger(storage, "study", search(patience=2))
    assert (again.stop(), again.num_open()) == (None, 9)
    assert (drain(again), again.total, again.num_open()) == (4, 5, 0)
    assert again.stop().rule == "patience"
    longer = Ledger(storage, "study", search(patience=3))
    assert (longer.stop(), longer.num_open()) == (None, 5)
    assert (drain(longer), longer.total) == (4, 9)
    whole = Ledger(storage, "study", search())
    assert (drain(whole), whole.total, whole.stop()) == (1, 10, None)


def test_retries_of_failed_trials_run_after_the_search_has_ended():
    ledger = Ledger(InMemoryStorage(), "study", search(patience=2))
    ledger.fail(ledger.next_trial().number, "a bug")
    drain(ledger)
    assert ledger.stop().rule == "patience"
    total = ledger.total
    ledger.retry_failed()
    assert (ledger.total, ledger.num_open()) == (total + 1, 1)
    ledger.finish(ledger.next_trial().number, {ACCURACY: 0.99})
    assert (ledger.next_trial(), ledger.total, ledger.stop().rule) == (None, total + 1, "patience")


def test_the_hours_of_all_drivers_end_a_search():
    storage = InMemoryStorage()
    ledger = Ledger(storage, "study", search(max_hours=2))
    ledger.finish(ledger.next_trial().number, {ACCURACY: 0.5})
    for hours in (1.5, 0.4):
        add_driver(storage, hours)
        assert ledger.stop() is None and ledger.num_open() == 9
    add_driver(storage, 0.1)
    assert (ledger.stop().rule, ledger.num_open(), ledger.next_trial()) == ("max_hours", 0, None)
    assert Ledger(storage, "study", search(max_hours=3)).num_open() == 9


def add_driver(storage: InMemoryStorage, hours: float) -> None:
    """Add the lease record of a driver that has run the study for so long."""
    record = add_record(storage, get_or_create_records(storage, "study"), 10.0, 60.0)
    now = datetime.now(UTC)
    owner = {**record.user_attrs[OWNER], "since": (now - timedelta(hours=hours)).isoformat()}
    storage.set_trial_user_attr(record._trial_id, OWNER, owner)
    storage.set_trial_user_attr(record._trial_id, HEARTBEAT, now.isoformat())
    storage.set_trial_state_values(record._trial_id, TrialState.COMPLETE, [3600 * hours])
