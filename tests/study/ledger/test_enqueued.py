"""Points that another process adds to a search by Optuna's own ``enqueue_trial``, also while it runs."""

import os
import signal
from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from gitdist.spec import Dimension, SearchSpec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.storage import close_storage, open_storage
from tests.processes import forkserver

SPACE = {
    "threshold": Dimension(int=(10, 1000), log=True),
    "fraction": Dimension(float=(0.1, 0.9)),
    "loss": Dimension(choice=("cross-entropy", "ldam")),
    "ldam_scale": Dimension(float=(10, 30), when={"loss": "ldam"}),
}
SEARCH = SearchSpec(space=SPACE, total=6, startup=2, seed=3)
POINT = {"threshold": 50, "fraction": 0.5, "loss": "ldam", "ldam_scale": 20.0}
PROCESSES = forkserver("gitdist.study.ledger.ledger")


def open_ledger(storage: BaseStorage, search: SearchSpec = SEARCH) -> Ledger:
    return Ledger(storage, "study", search)


def enqueue(storage: BaseStorage, params: dict) -> None:
    optuna.load_study(study_name="study", storage=storage).enqueue_trial(params)


def drain(ledger: Ledger, count: int = 100) -> list[dict]:
    points = []
    while len(points) < count and (record := ledger.next_trial()) is not None:
        points.append(dict(record.params))
        ledger.finish(record.number, {"val/balanced_accuracy": record.params["fraction"]})
    return points


@pytest.fixture
def storage() -> BaseStorage:
    return InMemoryStorage()


def test_an_enqueued_point_is_tried_next_in_addition_to_the_others(storage):
    alone = drain(open_ledger(InMemoryStorage()))
    ledger = open_ledger(storage)
    before = drain(ledger, 3)
    enqueue(storage, POINT)
    assert ledger.total == 7
    after = drain(ledger)
    assert before == alone[:3]
    assert after[0] == POINT
    assert len(after) == 4
    assert {trial.state for trial in storage.get_all_trials(0)} == {TrialState.COMPLETE}


def test_the_points_are_those_of_a_plain_loop_that_enqueues_it(storage):
    ledger = open_ledger(storage, SEARCH.model_copy(update={"algorithm": "random"}))
    found = drain(ledger, 2)
    enqueue(storage, {"fraction": 0.5, "loss": "cross-entropy"})
    found += drain(ledger)
    plain = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    for number in range(7):
        if number == 2:
            plain.enqueue_trial({"fraction": 0.5, "loss": "cross-entropy"})
        trial = plain.ask()
        trial.suggest_int("threshold", 10, 1000, log=True)
        trial.suggest_float("fraction", 0.1, 0.9)
        if trial.suggest_categorical("loss", ["cross-entropy", "ldam"]) == "ldam":
            trial.suggest_float("ldam_scale", 10, 30)
        plain.tell(trial, 0.0)
    assert found == [trial.params for trial in plain.trials]


def test_a_point_enqueued_after_the_end_is_trained_by_the_next_driver(storage):
    drain(open_ledger(storage))
    enqueue(storage, POINT)
    ledger = open_ledger(storage)
    assert ledger.num_open() == 1
    assert dict(ledger.trials()[-1].params) == POINT
    assert drain(ledger) == [POINT]


def test_a_point_of_a_grid_is_not_tried_twice(storage):
    space = {"loss": Dimension(choice=("cross-entropy", "ldam", "focal"))}
    ledger = open_ledger(storage, SearchSpec(space=space, algorithm="grid"))
    enqueue(storage, {"loss": "ldam"})
    points = []
    while (record := ledger.next_trial()) is not None:
        points.append(record.params["loss"])
        ledger.finish(record.number, {"val/balanced_accuracy": 0.5})
    assert points[0] == "ldam" and sorted(points) == ["cross-entropy", "focal", "ldam"]


@pytest.mark.parametrize("params", [{"threshold": 5}, {"lr": 0.1}, {"loss": "cross-entropy", "ldam_scale": 12.0}])
def test_a_point_that_the_search_would_not_suggest_fails_with_the_reason(storage, params):
    ledger = open_ledger(storage)
    enqueue(storage, params)
    assert len(drain(ledger)) == 6
    failed = ledger.trials()[0]
    assert failed.state == "failed" and list(params)[-1] in (failed.reason or "")
    assert failed.params == {}  # no reader of a trial's parameters finds one that the study does not know
    assert ledger.retry_failed() == []  # it would be refused again


def test_many_points_that_the_search_would_not_suggest_fail_at_once(storage):
    ledger = open_ledger(storage)
    for _ in range(400):
        enqueue(storage, {"lr": 0.1})
    assert len(drain(ledger)) == 6
    assert ledger.num_open() == 0


def test_with_a_lag_it_waits_for_the_outcomes_that_it_may_depend_on(storage):
    ledger = open_ledger(storage, SEARCH.model_copy(update={"lag": 2}))
    first, _second = ledger.next_trial(), ledger.next_trial()
    enqueue(storage, {"loss": "ldam"})
    assert ledger.next_trial() is None
    ledger.finish(first.number, {"val/balanced_accuracy": 0.5})
    assert ledger.next_trial().params["loss"] == "ldam"


def test_one_that_is_enqueued_while_another_is_made_gets_its_own_number(storage):
    def link(params, records):
        if len(records) == 2:
            enqueue(storage, POINT)
        return {}

    ledger, numbers = open_ledger(storage), []
    while (record := ledger.next_trial(link)) is not None:
        numbers.append(record.number)
        ledger.finish(record.number, {"val/balanced_accuracy": record.params["fraction"]})
    assert sorted(numbers) == list(range(7))
    assert dict(ledger.trials()[2].params) == POINT


def start_and_be_killed(directory: Path, writes: int) -> None:
    """Be killed after some of the writes by which an enqueued point becomes a running trial."""
    storage = open_storage("sqlite", StudyPaths.at(directory, "study"))
    ledger = open_ledger(storage)
    names = ("set_trial_param", "set_trial_system_attr", "set_trial_user_attr", "set_trial_state_values")
    count = 0

    def killing(method):
        def call(*args, **kwargs):
            nonlocal count
            if count == writes:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
            return method(*args, **kwargs)

        return call

    for name in names:
        setattr(ledger._storage, name, killing(getattr(ledger._storage, name)))
    ledger.next_trial(lambda params, records: {"replicate_of": 0})


@pytest.mark.parametrize("writes", range(0, 7, 2))
def test_killed_while_it_becomes_a_trial_it_has_the_same_parameters(writes, tmp_path):
    paths = StudyPaths.at(tmp_path, "study")
    paths.create()
    storage = open_storage("sqlite", paths)
    ledger = open_ledger(storage)
    drain(ledger, 3)
    enqueue(storage, {"loss": "ldam"})
    close_storage(storage)
    process = PROCESSES.Process(target=start_and_be_killed, args=(tmp_path, writes))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL

    undisturbed = InMemoryStorage()
    other = open_ledger(undisturbed)
    drain(other, 3)
    enqueue(undisturbed, {"loss": "ldam"})
    storage = open_storage("sqlite", paths)
    assert drain(open_ledger(storage)) == drain(other)
    close_storage(storage)
