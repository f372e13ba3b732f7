import optuna
import pytest

from gitdist.errors import StudyError
from gitdist.spec import Dimension, SearchSpec
from gitdist.study.ledger import Ledger

SPACE = {
    "threshold": Dimension(int=(10, 1000), log=True),
    "fraction": Dimension(float=(0.1, 0.9)),
    "sampler": Dimension(choice=("instance", "class-balanced")),
}


@pytest.fixture
def open_ledger(tmp_path):
    opened = []

    def open_(**fields) -> Ledger:
        ledger = Ledger(tmp_path / "ledger.db", "study", SearchSpec(**{"total": 6, "space": SPACE, **fields}))
        opened.append(ledger)
        return ledger

    yield open_
    for ledger in opened:
        ledger.close()


def drain(ledger: Ledger) -> list[dict]:
    params = []
    while (record := ledger.next_trial()) is not None:
        params.append(dict(record.params))
        ledger.finish(record.number, record.params["fraction"])
    return params


@pytest.mark.parametrize("algorithm", ["tpe", "random", "grid"])
def test_a_study_ends_with_exactly_the_asked_number_of_trials(open_ledger, algorithm):
    ledger = open_ledger(algorithm=algorithm)
    drain(ledger)
    assert [record.number for record in ledger.trials()] == list(range(6))
    assert {record.state for record in ledger.trials()} == {"finished"}
    assert ledger.num_open() == 0


def test_a_grid_ends_with_its_points_each_once(open_ledger):
    space = {"fraction": Dimension(float=(0.1, 0.9), points=2), "sampler": SPACE["sampler"]}
    ledger = open_ledger(algorithm="grid", total=50, space=space)
    points = {(params["fraction"], params["sampler"]) for params in drain(ledger)}
    assert points == {(f, s) for f in (0.1, 0.9) for s in ("instance", "class-balanced")}
    assert len(ledger.trials()) == 4


def test_orphans_of_a_dead_driver_come_first_with_their_number_and_parameters(open_ledger):
    first = open_ledger()
    started = [first.next_trial() for _ in range(3)]
    first.finish(1, 0.5)
    first.close()
    again = open_ledger()
    assert again.num_open() == 5
    resumed = [again.next_trial() for _ in range(2)]
    assert [(r.number, r.params) for r in resumed] == [(r.number, r.params) for r in (started[0], started[2])]
    assert again.next_trial().number == 3


def test_proposals_do_not_depend_on_an_interruption(tmp_path):
    def proposals(interrupted: bool, path) -> list[dict]:
        search = SearchSpec(total=6, space=SPACE, startup=2)
        ledger, params = Ledger(path, "study", search), []
        for _ in range(6):
            if interrupted:
                ledger.close()
                ledger = Ledger(path, "study", search)
            record = ledger.next_trial()
            params.append(dict(record.params))
            ledger.finish(record.number, record.params["fraction"])
        ledger.close()
        return params

    assert proposals(False, tmp_path / "a.db") == proposals(True, tmp_path / "b.db")


def test_ending_twice_changes_nothing(open_ledger):
    ledger = open_ledger()
    ledger.next_trial()
    ledger.finish(0, 0.5)
    ledger.finish(0, 0.9)
    ledger.fail(0, "too late")
    (record,) = ledger.trials()
    assert (record.state, record.value, record.reason) == ("finished", 0.5, None)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_trial_without_a_finite_objective_is_failed_with_the_reason(open_ledger, value):
    ledger = open_ledger()
    ledger.next_trial()
    ledger.finish(0, value)
    (record,) = ledger.trials()
    assert record.state == "failed"
    assert "val/balanced_accuracy" in record.reason
    assert ledger.best() is None


def test_best_follows_the_objectives_direction_and_the_earlier_of_equals(open_ledger):
    ledger = open_ledger(objective="val/ekld")
    for value in (0.3, 0.1, 0.1, 0.2):
        ledger.finish(ledger.next_trial().number, value)
    assert ledger.best().number == 1


def test_an_epoch_noted_twice_counts_once(open_ledger):
    ledger = open_ledger()
    ledger.next_trial()
    ledger.record_epoch(0, 1, 0.4)
    ledger.record_epoch(0, 1, 0.4)
    ledger.record_epoch(0, 2, 0.5)
    assert ledger.trials()[0].values == {1: 0.4, 2: 0.5}


def test_any_optuna_program_can_read_the_ledger(open_ledger, tmp_path):
    drain(open_ledger())
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{tmp_path / 'ledger.db'}")
    assert len(study.trials) == 6
    assert study.best_value == max(trial.params["fraction"] for trial in study.trials)
    study._storage._backend.engine.dispose()


def test_a_file_that_is_no_ledger_is_refused_by_name(open_ledger, tmp_path):
    (tmp_path / "ledger.db").write_text("no database, but long enough to be taken for one " * 10)
    with pytest.raises(StudyError, match=str(tmp_path / "ledger.db")):
        open_ledger()
