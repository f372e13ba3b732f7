import itertools
import math
import random
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import optuna
import psycopg
import pytest
from optuna.trial import TrialState

from gitdist.errors import StudyError
from gitdist.spec import Dimension, StudySpec
from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.storage import close_storage, open_storage
from tests.processes import forkserver
from tests.study.ledger.ledger_campaign import CAMPAIGN, objective, open_and_look, run_campaign, work
from tests.waiting import until

PROCESSES = forkserver("tests.study.ledger.ledger_campaign", "tests.study.ledger.warm")

SPACE = {
    "threshold": Dimension(int=(10, 1000), log=True),
    "fraction": Dimension(float=(0.1, 0.9)),
    "sampler": Dimension(choice=("instance", "class-balanced")),
}
CONDITIONAL = {
    **SPACE,
    "loss": Dimension(choice=("cross-entropy", "ldam")),
    "ldam_scale": Dimension(float=(10, 30), points=2, when={"loss": "ldam"}),
}
ACCURACY, EKLD = "val/balanced_accuracy", "val/ekld"

cheapest = pytest.mark.parametrize("ledger_line", ["journal"])  # for what does not depend on the storage


@pytest.fixture
def paths(ledger_paths) -> StudyPaths:
    return ledger_paths


@pytest.fixture
def open_ledger(paths, ledger_line):
    """Open the study's ledger on the storage of ``ledger_line``; fields are those of the spec's search part."""
    opened = []

    def open_(**search) -> Ledger:
        fields = {"total": 6, "space": SPACE, "startup": 2, **search}
        opened.append(Ledger.open(paths, StudySpec(name="study", ledger=ledger_line, search=fields)))
        return opened[-1]

    yield open_
    for ledger in opened:
        ledger.close()


def metrics_of(params) -> dict[str, float]:
    return {ACCURACY: params["fraction"], EKLD: params["fraction"] ** 2 + (params["sampler"] == "instance")}


def drain(ledger: Ledger) -> list[dict]:
    params = []
    while (record := ledger.next_trial()) is not None:
        params.append(dict(record.params))
        ledger.finish(record.number, metrics_of(record.params))
    return params


class TestLedger:
    """What a ledger promises, on every kind of storage."""

    @pytest.mark.parametrize("algorithm", ["tpe", "random", "grid"])
    def test_a_study_ends_with_exactly_the_asked_number_of_trials(self, open_ledger, algorithm):
        ledger = open_ledger(algorithm=algorithm)
        assert (ledger.total, ledger.num_open()) == (6, 6)
        proposed = drain(ledger)
        assert [record.number for record in ledger.trials()] == list(range(6))
        assert [record.params for record in ledger.trials()] == proposed
        assert {record.state for record in ledger.trials()} == {"finished"}
        assert (ledger.total, ledger.num_open()) == (6, 0)
        again = open_ledger(algorithm=algorithm)
        assert (again.next_trial(), again.num_open()) == (None, 0)

    def test_a_raised_total_adds_trials(self, open_ledger):
        drain(open_ledger())
        assert len(drain(open_ledger(total=9))) == 3

    @cheapest
    def test_a_grid_with_conditions_ends_with_its_points_each_once(self, open_ledger):
        space = {
            **CONDITIONAL,
            "threshold": Dimension(int=(10, 30), step=10),
            "fraction": Dimension(float=(0, 1), points=2),
        }
        ledger = open_ledger(algorithm="grid", total=100, space=space, seed=3)
        points = [frozenset(params.items()) for params in drain(ledger)]
        expected = {
            frozenset({"threshold": k, "fraction": p, "sampler": s, **loss}.items())
            for k, p, s in itertools.product((10, 20, 30), (0.0, 1.0), ("instance", "class-balanced"))
            for loss in ({"loss": "cross-entropy"}, *({"loss": "ldam", "ldam_scale": x} for x in (10.0, 30.0)))
        }
        assert len(points) == len(expected) == ledger.total == 36
        assert set(points) == expected

    @cheapest
    @pytest.mark.parametrize("algorithm", ["tpe", "random"])
    def test_a_trial_has_the_fields_that_are_searched_in_it(self, open_ledger, algorithm):
        ledger = open_ledger(algorithm=algorithm, total=15, space=CONDITIONAL)
        drain(ledger)
        fields = [set(record.params) for record in ledger.trials()]
        assert all(
            ("ldam_scale" in f) == (r.params["loss"] == "ldam") for f, r in zip(fields, ledger.trials(), strict=True)
        )
        assert {len(f) for f in fields} == {4, 5}

    def test_orphans_of_a_dead_driver_come_first_with_their_number_and_parameters(self, open_ledger):
        first = open_ledger()
        started = [first.next_trial() for _ in range(3)]
        first.finish(1, metrics_of(started[1].params))
        again = open_ledger()
        assert again.num_open() == 5
        resumed = [again.next_trial() for _ in range(2)]
        assert [(r.number, r.params) for r in resumed] == [(r.number, r.params) for r in (started[0], started[2])]
        assert again.next_trial().number == 3

    def test_a_trial_whose_worker_was_lost_is_assigned_again_before_new_ones(self, open_ledger):
        ledger = open_ledger(total=3)
        started = [ledger.next_trial() for _ in range(3)]
        assert ledger.next_trial() is None
        ledger.finish(2, metrics_of(started[2].params))
        for number in (1, 1, 2):
            ledger.requeue(number)
        assert ledger.next_trial() == started[1]
        assert ledger.next_trial() is None

    def test_suggestions_depend_neither_on_an_interruption_nor_on_the_storage(self, open_ledger):
        interrupted = []
        for _ in range(6):
            ledger = open_ledger(total=8, space=CONDITIONAL)
            record = ledger.next_trial()
            interrupted.append(dict(record.params))
            ledger.finish(record.number, metrics_of(record.params))
        search = StudySpec(name="study", search={"total": 8, "space": CONDITIONAL, "startup": 2}).search
        at_once = Ledger(optuna.storages.InMemoryStorage(), "study", search)
        assert drain(at_once)[:6] == interrupted

    @cheapest
    def test_points_to_try_first_come_first(self, open_ledger):
        first = ({"threshold": 50, "fraction": 0.25, "sampler": "instance"}, {"fraction": 0.75})
        params = drain(open_ledger(try_first=first))
        assert params[0] == first[0]
        assert params[1]["fraction"] == 0.75 and set(params[1]) == set(SPACE)
        assert len(params) == 6

    @pytest.mark.parametrize("algorithm", ["tpe", "random"])
    def test_several_objectives_end_in_the_pareto_set(self, open_ledger, algorithm):
        ledger = open_ledger(algorithm=algorithm, objective=[ACCURACY, EKLD], total=8)
        drain(ledger)
        found = {record.number: record.objectives for record in ledger.trials()}
        assert found == {
            r.number: tuple(metrics_of(r.params)[name] for name in (ACCURACY, EKLD)) for r in ledger.trials()
        }
        undominated = [
            number
            for number, (accuracy, ekld) in found.items()
            if not any((a >= accuracy and e <= ekld) and (a, e) != (accuracy, ekld) for a, e in found.values())
        ]
        assert [record.number for record in ledger.pareto()] == undominated
        assert ledger.best().value == max(accuracy for accuracy, _ in found.values())

    def test_ending_twice_changes_nothing(self, open_ledger):
        ledger = open_ledger()
        ledger.next_trial(), ledger.next_trial()
        ledger.finish(0, {ACCURACY: 0.5})
        ledger.finish(0, {ACCURACY: 0.9})
        ledger.finish(0, {})
        ledger.fail(0, "too late")
        ledger.fail(1, "out of memory")
        ledger.fail(1, "another reason")
        ledger.finish(1, {ACCURACY: 0.9})
        ended = [(r.state, r.value, r.reason) for r in open_ledger().trials()]
        assert ended == [("finished", 0.5, None), ("failed", None, "out of memory")]

    @pytest.mark.parametrize(
        "metrics", [{ACCURACY: math.nan, EKLD: 1.0}, {ACCURACY: 0.5, EKLD: math.inf}, {ACCURACY: 0.5}]
    )
    def test_a_trial_without_finite_objectives_is_failed_with_the_reason(self, open_ledger, metrics):
        ledger = open_ledger(objective=[ACCURACY, EKLD])
        ledger.next_trial()
        ledger.finish(0, metrics)
        (record,) = ledger.trials()
        assert (record.state, record.objectives) == ("failed", ())
        bad = ACCURACY if math.isnan(metrics[ACCURACY]) else EKLD
        assert record.reason == f"the objective {bad} is {metrics.get(bad, 'missing')}"
        assert (ledger.best(), ledger.pareto()) == (None, [])

    def test_failed_trials_are_retried_once_each_and_count_on_top(self, open_ledger):
        ledger = open_ledger()
        records = [ledger.next_trial() for _ in range(4)]
        ledger.fail(1, "a bug")
        ledger.fail(3, "another")
        for number in (0, 2):
            ledger.finish(number, {ACCURACY: 0.5})
        assert open_ledger().retry_failed() == [(1, 4), (3, 5)]
        assert ledger.retry_failed() == []
        assert (ledger.total, ledger.num_open()) == (8, 4)
        again = [ledger.next_trial() for _ in range(2)]
        assert [(r.number, r.retry_of, r.params) for r in again] == [
            (4, 1, records[1].params),
            (5, 3, records[3].params),
        ]
        ledger.fail(4, "still there")
        assert ledger.retry_failed() == [(4, 6)]
        ledger.finish(5, {ACCURACY: 0.5})
        assert drain(ledger)[0] == records[1].params
        assert len(ledger.trials()) == ledger.total == 9

    def test_study_attributes_are_stored(self, open_ledger):
        ledger = open_ledger()
        assert ledger.get_attr("baseline") is None
        ledger.set_attr("baseline", {"state": "finished", "value": 0.5})
        ledger.set_attr("baseline", {"state": "failed", "value": None})
        again = open_ledger()
        assert again.get_attr("baseline") == {"state": "failed", "value": None}

    def test_epochs_are_stored_from_the_switch_on_and_each_once(self, open_ledger, paths, ledger_line):
        trial = {"epochs": 6, "switch_epoch": 2}
        spec = StudySpec(name="study", ledger=ledger_line, trial=trial, search={"space": SPACE})
        ledger = Ledger.open(paths, spec)
        ledger.next_trial()
        for epoch, value in ((1, 0.1), (2, 0.2), (3, 0.3), (3, 0.9), (4, math.nan), (5, 0.5), (4, 0.4)):
            assert not ledger.report(0, epoch, {ACCURACY: value})
        assert not ledger.report(0, 6, {EKLD: 1.0})
        (record,) = ledger.trials()
        assert list(record.curve.items()) == [(3, 0.3), (4, 0.4), (5, 0.5)]
        (trial,) = optuna.load_study(storage=ledger.storage, study_name="study").trials
        assert trial.intermediate_values == {1: 0.3, 2: 0.4, 3: 0.5}
        ledger.close()

    def test_epochs_of_several_objectives_are_not_stored(self, open_ledger):
        ledger = open_ledger(objective=[ACCURACY, EKLD])
        ledger.next_trial()
        assert not ledger.report(0, 1, {ACCURACY: 0.5, EKLD: 0.5})
        assert ledger.trials()[0].curve == {}

    def test_any_optuna_program_can_read_the_ledger(self, paths, ledger_line):
        spec = CAMPAIGN.model_copy(update={"ledger": ledger_line})
        ledger = Ledger.open(paths, spec)
        ledger.fail(ledger.next_trial().number, "a bug")
        work(ledger, spec)
        records = ledger.trials()
        ledger.close()
        storage = open_storage(ledger_line, paths)
        study = optuna.load_study(storage=storage, study_name="study")
        states = {"finished": TrialState.COMPLETE, "failed": TrialState.FAIL, "pruned": TrialState.PRUNED}
        assert study.direction == optuna.study.StudyDirection.MAXIMIZE
        assert [trial.state for trial in study.trials] == [states[record.state] for record in records]
        assert {record.state for record in records} == set(states)
        for trial, record in zip(study.trials, records, strict=True):
            assert trial.params == record.params
            assert trial.intermediate_values == {epoch - 2: value for epoch, value in record.curve.items()}
            if record.state != "failed":
                last = max(record.curve)
                assert trial.value == record.curve[last] == objective(record.params, last)
                assert record.pruned_at == (last if record.state == "pruned" else None)
        assert study.best_trial.number == min((-r.value, r.number) for r in records if r.value is not None)[1]
        assert len(study.trials_dataframe()) == 12
        close_storage(storage)

    def test_a_study_with_other_objectives_is_refused(self, open_ledger):
        open_ledger()
        with pytest.raises(StudyError, match="maximize.*val/ekld.*another name"):
            open_ledger(objective=EKLD)

    def test_a_second_study_in_the_same_storage_does_not_affect_the_first(self, open_ledger):
        ledger = open_ledger()
        other = optuna.create_study(storage=ledger.storage, study_name="study.owners")
        for _ in range(3):
            ledger.finish(ledger.next_trial().number, {ACCURACY: 0.5})
            other.add_trial(optuna.trial.create_trial(value=1.0))
        assert [record.number for record in ledger.trials()] == [0, 1, 2]

    @cheapest
    def test_with_a_lag_suggestions_do_not_depend_on_the_order_in_which_trials_end(self, open_ledger):
        alone = open_ledger(total=14, lag=3, space=CONDITIONAL)
        expected = {number: params for number, params in enumerate(drain(alone))}
        for seed in range(3):
            found = run_in_parallel(ledger_in_memory(alone), at_once=3, draw=random.Random(seed))
            assert found == expected

    def test_two_drivers_that_open_a_new_ledger_at_once_share_one_study(self, paths, ledger_line):
        barrier, counts = PROCESSES.Barrier(3), PROCESSES.Queue()
        arguments = (paths, ledger_line, barrier, counts)
        opening = [PROCESSES.Process(target=open_and_look, args=arguments) for _ in range(3)]
        for process in opening:
            process.start()
        assert [counts.get(timeout=120) for _ in opening] == [0, 0, 0]
        for process in opening:
            process.join()

    def test_a_drivers_sigkill_at_any_moment_loses_and_doubles_nothing(self, paths, ledger_line):
        expected = undisturbed()
        draw = random.Random(0)
        reach_s = 0.02 if ledger_line == "journal" else 0.2  # a journal's writes are so much faster
        for number in range(12):
            opened = PROCESSES.Event()
            driver = PROCESSES.Process(target=run_campaign, args=(paths, ledger_line, opened, 4))
            driver.start()
            if number % 3:  # else it is killed while it opens the ledger
                assert opened.wait(60)
            driver.join(reach_s * draw.random())
            driver.kill()
            driver.join()
            assert driver.exitcode == -signal.SIGKILL
        ledger = Ledger.open(paths, CAMPAIGN.model_copy(update={"ledger": ledger_line}))
        work(ledger, CAMPAIGN)
        assert ledger.trials() == expected
        ledger.close()


def test_the_sqlite_file_appears_whole_however_soon_its_driver_is_killed(paths):
    whole = StudyPaths.at(paths.results, "other")
    whole.create()
    close_storage(open_storage("sqlite", whole))
    draft, num_soon = paths.ledger.with_suffix(".new"), 0
    for tenths in range(0, 10, 2):
        opened = PROCESSES.Event()
        driver = PROCESSES.Process(target=run_campaign, args=(paths, "sqlite", opened, 0))
        driver.start()
        until(lambda tenths=tenths: size_of(draft) >= tenths / 10 * size_of(whole.ledger), pause_s=0.001)
        driver.kill()
        driver.join()
        num_soon += not paths.ledger.exists()
        if paths.ledger.exists():  # a slow moment
            assert schema(paths.ledger) == schema(whole.ledger)
            paths.ledger.unlink()
    assert num_soon >= 3 and size_of(draft) >= 0
    ledger = Ledger.open(paths, CAMPAIGN)
    assert schema(paths.ledger) == schema(whole.ledger)
    work(ledger, CAMPAIGN)
    assert ledger.trials() == undisturbed()
    ledger.close()
    assert sorted(path.name for path in paths.study.iterdir()) == ["driver.lock", "ledger.db"]


def size_of(path: Path) -> int:
    """Return a file's bytes; -1 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def schema(path: Path) -> tuple[list, list]:
    with closing(sqlite3.connect(path)) as connection:
        tables = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        return tables, connection.execute("SELECT version_num FROM alembic_version").fetchall()


def undisturbed() -> list:
    """The campaign's trials where nobody kills it."""
    ledger = Ledger(
        optuna.storages.InMemoryStorage(),
        "study",
        CAMPAIGN.search,
        CAMPAIGN.trial.switch_epoch,
        CAMPAIGN.trial.epochs,
    )
    work(ledger, CAMPAIGN)
    assert {record.state for record in ledger.trials()} == {"finished", "pruned"}
    return ledger.trials()


def ledger_in_memory(other: Ledger) -> Ledger:
    return Ledger(optuna.storages.InMemoryStorage(), other.name, other._search)


def run_in_parallel(ledger: Ledger, at_once: int, draw: random.Random) -> dict[int, dict]:
    """Run a study with several trials at once that end in random order; return what was proposed."""
    running, proposed = [], {}
    while True:
        while len(running) < at_once and (record := ledger.next_trial()) is not None:
            running.append(record)
            proposed[record.number] = dict(record.params)
        if not running:
            assert ledger.num_open() == 0
            return proposed
        ended = running.pop(draw.randrange(len(running)))
        ledger.finish(ended.number, metrics_of(ended.params))


def test_a_lag_makes_the_caller_wait():
    search = StudySpec(name="study", search={"space": SPACE, "total": 4, "lag": 2}).search
    ledger = Ledger(optuna.storages.InMemoryStorage(), "study", search)
    assert [ledger.next_trial().number for _ in range(2)] == [0, 1]
    ledger.finish(1, {ACCURACY: 0.5})
    assert ledger.next_trial() is None and ledger.num_open() == 3
    ledger.finish(0, {ACCURACY: 0.5})
    assert [ledger.next_trial().number for _ in range(2)] == [2, 3]
    assert ledger.next_trial() is None


@pytest.mark.parametrize("line", ["sqlite", "journal"])
def test_a_ledger_that_is_damaged_while_it_is_open_is_named(paths, line):
    spec = StudySpec(name="study", ledger=line, search={"space": SPACE})
    ledger = Ledger.open(paths, spec)
    record = ledger.next_trial()
    place = paths.study / ("ledger.db" if line == "sqlite" else "ledger.journal")
    place.unlink()
    place.mkdir()
    ledger.close()  # SQLite's connections stay usable without their file
    for call in (lambda: ledger.finish(record.number, {ACCURACY: 0.5}), ledger.trials, lambda: ledger.set_attr("a", 1)):
        with pytest.raises(StudyError) as caught:
            call()
        message = str(caught.value)
        assert str(place) in message and "run the same command again" in message and "\n" not in message
    ledger.close()


def test_a_server_that_was_restarted_is_joined_again_and_one_that_is_gone_is_named(paths, database):
    ledger = Ledger.open(paths, StudySpec(name="study", ledger=database, search={"space": SPACE}))
    ledger.next_trial()
    server, _, name = database.rpartition("/")
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        ledger.finish(0, {ACCURACY: 0.5})
        assert ledger.trials()[0].state == "finished"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    with pytest.raises(StudyError) as caught:
        ledger.trials()
    message = str(caught.value)
    assert database in message and "does not exist" in message and "\n" not in message
    ledger.close()


class Crash(Exception):
    """The driver is gone."""


class CrashingStorage:
    """A storage whose driver is gone after a number of writes."""

    def __init__(self, storage: optuna.storages.BaseStorage, writes_left: int) -> None:
        self._storage, self.writes_left = storage, writes_left

    def __getattr__(self, name: str):
        method = getattr(self._storage, name)
        if not name.startswith(("set_", "create_", "delete_")):
            return method

        def write(*arguments, **options):
            if self.writes_left == 0:
                raise Crash
            self.writes_left -= 1
            return method(*arguments, **options)

        return write


def pruned_study(storage: optuna.storages.BaseStorage, kind: str, crash_after: list[int]) -> tuple[list, int]:
    """Run a serial study whose driver is gone after so many writes each time; return the trials and the writes left."""
    spec = StudySpec(
        name="study",
        trial={"epochs": 8, "switch_epoch": 2},
        search={
            "total": 7,
            "algorithm": "random",
            "seed": 1,
            "space": {
                "fraction": Dimension(float=(0.1, 0.9)),
                "sampler": Dimension(choice=("instance", "square-root")),
            },
            "pruner": {"kind": kind, "min_epochs": 1, "reduction_factor": 2, "startup": 2},
        },
    )
    for num_writes in (*crash_after, -1):
        crashing = CrashingStorage(storage, num_writes)
        try:
            ledger = Ledger(crashing, "study", spec.search, spec.trial.switch_epoch, spec.trial.epochs)
            work(ledger, spec)
            break
        except Crash:
            continue
    return ledger.trials(), crashing.writes_left


PRUNERS = ["successive-halving", "hyperband", "median"]


@pytest.mark.parametrize("kind", PRUNERS)
def test_every_pruner_decides_the_same_on_every_storage_and_after_any_row_of_interruptions(paths, ledger_line, kind):
    expected, _ = pruned_study(optuna.storages.InMemoryStorage(), kind, [])
    storage = open_storage(ledger_line, paths)
    cached = optuna.storages.get_storage(storage)
    assert pruned_study(cached, kind, [2] * 20 + [3] * 10 + [5] * 5)[0] == expected
    close_storage(storage)


@pytest.mark.parametrize("kind", PRUNERS)
def test_an_interruption_at_any_write_changes_no_decision_of_the_pruner(kind):
    expected, _ = pruned_study(optuna.storages.InMemoryStorage(), kind, [])
    assert {record.state for record in expected} == {"finished", "pruned"}
    for num_writes in itertools.count(1):
        trials, left = pruned_study(optuna.storages.InMemoryStorage(), kind, [num_writes])
        assert trials == expected
        if left >= 0:  # it ended before
            break
    assert num_writes > 50


def test_a_pruning_decision_is_final_whatever_other_trials_do_meanwhile():
    spec = StudySpec(
        name="study",
        trial={"epochs": 9},
        search={"space": SPACE, "pruner": {"kind": "median", "min_epochs": 2, "startup": 1}},
    )
    storage = optuna.storages.InMemoryStorage()

    def open_(writes_left: int = -1) -> Ledger:
        return Ledger(CrashingStorage(storage, writes_left), "study", spec.search, 0, spec.trial.epochs)

    def end_others(value: float, count: int) -> None:
        study = optuna.load_study(storage=storage, study_name="study")
        for _ in range(count):
            study.add_trial(optuna.trial.create_trial(value=value, intermediate_values={2: value}))

    ledger = open_()
    kept, dropped = ledger.next_trial().number, ledger.next_trial().number
    assert not ledger.report(kept, 2, {ACCURACY: 0.4})
    end_others(0.5, 1)  # from here on 0.4 is below the median
    assert not ledger.report(kept, 2, {ACCURACY: 0.4})
    with pytest.raises(Crash):  # of the writes the first looks for the study, the fourth is the decision
        open_(writes_left=4).report(dropped, 2, {ACCURACY: 0.4})
    again = open_()
    end_others(0.1, 2)  # from here on it is above
    assert again.report(dropped, 2, {ACCURACY: 0.4})
    assert [(record.state, record.pruned_at) for record in again.trials()[:2]] == [("running", None), ("pruned", 2)]


def in_memory(search: dict, storage=None) -> Ledger:
    storage = storage or optuna.storages.InMemoryStorage()
    return Ledger(storage, "study", StudySpec(name="study", search=search).search)


def finish_all(ledger: Ledger) -> list[dict]:
    params = []
    while (record := ledger.next_trial()) is not None:
        params.append(dict(record.params))
        ledger.finish(record.number, {ACCURACY: random.Random(record.number).random()})
    assert ledger.num_open() == 0 and ledger.total == len(ledger.trials())
    return params


@pytest.mark.parametrize("algorithm", ["tpe", "random", "grid"])
def test_an_empty_space_has_one_trial(algorithm):
    assert finish_all(in_memory({"algorithm": algorithm, "total": 8})) == [{}]


FEW = {
    "threshold": {"int": [10, 20], "step": 5},
    "loss": {"choice": ["cross-entropy", "ldam"]},
    "ldam_margin": {"float": [0.1, 0.3], "step": 0.1, "when": {"loss": "ldam"}},
}  # 3 + 3 * 3 points


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
@pytest.mark.parametrize("total", [12, 20])
def test_a_space_of_fewer_points_than_total_is_tried_whole_each_point_once(algorithm, total):
    first = {"threshold": 15, "loss": "ldam", "ldam_margin": 0.3}
    params = finish_all(in_memory({"algorithm": algorithm, "total": total, "space": FEW, "try_first": [first]}))
    assert params[0] == first and len(params) == 12
    assert len({tuple(sorted(point.items())) for point in params}) == 12


@pytest.mark.parametrize("algorithm", ["tpe", "random"])
def test_a_study_that_becomes_longer_than_its_space_ends_with_every_point(algorithm):
    storage = optuna.storages.InMemoryStorage()
    proposed = finish_all(in_memory({"algorithm": algorithm, "total": 9, "space": FEW}, storage))
    longer = in_memory({"algorithm": algorithm, "total": 40, "space": FEW}, storage)
    later = finish_all(longer)
    points = {tuple(sorted(point.items())) for point in (*proposed, *later)}
    assert len(points) == 12
    assert len(later) == 12 - len({tuple(sorted(point.items())) for point in proposed})


def test_with_a_lag_reused_results_change_no_suggestion():
    space = {"threshold": {"int": [1, 40]}}  # 40 points; rounded to tens, below, there are 4 settings
    search = {"total": 16, "space": space, "lag": 3, "startup": 3}

    def link(params, records):
        same = [record for record in records if record.params["threshold"] // 10 == params["threshold"] // 10]
        finished = [record for record in same if record.state == "finished"]
        if finished:
            return {"repeat_of": finished[0].number}
        return {"replicate_of": same[0].number} if same else {}

    def run(seed: int, link) -> tuple[list[dict], list[dict]]:
        ledger, draw, running = in_memory(search), random.Random(seed), []
        while True:
            while len(running) < 3 and (record := ledger.next_trial(link)) is not None:
                running.append(record)
            if not running:
                return [dict(r.params) for r in ledger.trials()], [r.links for r in ledger.trials()]
            ended = running.pop(draw.randrange(len(running)))
            ledger.finish(ended.number, {ACCURACY: ended.params["threshold"] // 10})

    expected, none = run(0, None)
    runs = [run(seed, link) for seed in range(8)]
    assert not any(none) and all(proposed == expected for proposed, _ in runs)
    assert any("repeat_of" in links for _, every in runs for links in every)
    assert len({str(links) for _, links in runs}) > 1  # which of them are reused is a matter of time


def test_a_repeat_of_a_finished_trial_is_not_pruned():
    pruner = {"kind": "successive-halving", "min_epochs": 1, "reduction_factor": 2}
    spec = StudySpec(name="study", search={"space": SPACE, "total": 6, "pruner": pruner})
    ledger = Ledger(optuna.storages.InMemoryStorage(), "study", spec.search, 0, 4)

    def worst_is_pruned(link) -> bool:
        number = ledger.next_trial(link).number
        return any(ledger.report(number, epoch, {ACCURACY: 0.01 * epoch}) for epoch in (1, 2, 3))

    for value in (0.9, 0.8, 0.7):
        number = ledger.next_trial().number
        for epoch in (1, 2, 3, 4):
            ledger.report(number, epoch, {ACCURACY: value})
        ledger.finish(number, {ACCURACY: value})
    assert worst_is_pruned(None)
    assert not worst_is_pruned(lambda params, records: {"repeat_of": 0})
