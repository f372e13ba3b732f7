import pytest

from gitdist.spec import StudySpec
from gitdist.study.attempt import Attempt
from gitdist.study.ledger.lease import Lease
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.paths import BASELINE, StudyPaths, TrialId
from gitdist.study.rows import RowsFile
from gitdist.study.standing import TrialStanding, take_stock, time_left

EPOCHS = 4


def standing(state: str, epoch: int, seconds: float | None = 2.0) -> TrialStanding:
    return TrialStanding(trial="0", state=state, epoch=epoch, epochs=EPOCHS, params={}, metrics={}, seconds=seconds)


def test_time_left_is_the_epochs_to_do_at_the_mean_seconds_shared_by_those_at_once():
    trials = [standing("finished", 4), standing("running", 1, 4.0), standing("running", 3, 4.0)]
    mean_s = (4 * 2.0 + 1 * 4.0 + 3 * 4.0) / 8
    to_do = 3 + 1 + 2 * 4  # two running, two to come
    assert time_left(trials, 2, EPOCHS, None) == pytest.approx(to_do * mean_s / 2)


def test_pruned_trials_make_the_ones_to_come_shorter():
    trials = [standing("finished", 4), standing("pruned", 2)]
    assert time_left(trials, 10, EPOCHS, 5) == pytest.approx(10 * 3 * 2.0 / 5)


def test_before_the_first_epoch_there_is_no_estimate():
    assert time_left([standing("running", 0, None)], 3, EPOCHS, None) is None
    assert time_left([], 3, EPOCHS, None) is None


@pytest.fixture
def study(tmp_path):
    spec = StudySpec.model_validate(
        {
            "name": "study",
            "trial": {"epochs": EPOCHS},
            "search": {"total": 4, "algorithm": "random", "space": {"fraction": {"float": [0, 1]}}},
        }
    )
    paths = StudyPaths(tmp_path, "study")
    paths.create()
    ledger = Ledger.open(paths, spec)
    yield paths, spec, ledger
    ledger.close()


def write_rows(paths: StudyPaths, trial: TrialId, num: int) -> None:
    paths.trial(trial).mkdir(parents=True)
    rows = [
        {"epoch": epoch, "val/balanced_accuracy": 0.1 * epoch, "train_s": 1.5, "evaluating_s": 0.5}
        for epoch in range(1, num + 1)
    ]
    RowsFile(paths.rows(trial), rows).close()


def test_a_study_is_running_while_a_driver_lives_and_interrupted_after(study):
    paths, spec, ledger = study
    ledger.next_trial(), ledger.next_trial(), ledger.next_trial()
    ledger.finish(0, {"val/balanced_accuracy": 0.4})
    ledger.fail(1, "the loss is nan")
    write_rows(paths, BASELINE, EPOCHS)
    write_rows(paths, TrialId("trial", 0), EPOCHS)
    write_rows(paths, TrialId("trial", 2), 1)
    Attempt.begin(paths.trial(TrialId("trial", 2)))
    with Lease.claim(ledger.storage, "study"):
        assert [trial.state for trial in take_stock(paths, spec, ledger).trials][3] == "waiting"
        Attempt.begin(paths.trial(TrialId("trial", 2)))
        now = take_stock(paths, spec, ledger)
    assert (now.state, now.total, now.counts) == ("running", 4, {"finished": 1, "failed": 1, "running": 1})
    assert now.owner.state == "live"
    assert [(trial.trial, trial.state, trial.epoch) for trial in now.trials] == [
        ("baseline", "finished", 4),
        ("0", "finished", 4),
        ("1", "failed", 0),
        ("2", "running", 1),
    ]
    assert now.trials[1].metrics == {"val/balanced_accuracy": pytest.approx(0.4)}
    assert now.trials[2].reason == "the loss is nan"
    assert now.time_left_s == pytest.approx(2.0 * (3 + 4))
    assert now.best == [{"trial": 0, "params": dict(ledger.trials()[0].params), "objectives": [0.4]}]
    later = take_stock(paths, spec, ledger)
    assert (later.state, later.counts, later.owner) == (
        "interrupted",
        {"finished": 1, "failed": 1, "interrupted": 1},
        None,
    )
    values = later.as_json()
    assert values["trials"][3]["state"] == "interrupted" and values["owner"] is None
