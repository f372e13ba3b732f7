import json

import pytest
from mlflow.tracking import MlflowClient

from gitdist.errors import StudyError
from gitdist.study.events import Outcome
from gitdist.study.paths import BASELINE, StudyPaths, TrialId
from gitdist.study.rows import RowsFile
from gitdist.study.tracking import Tracker, tracking_uri

ROW = {
    "epoch": 1,
    "train/loss": 0.5,
    "val/balanced_accuracy": 0.75,
    "val/ekld": 0.25,
    "val/accuracy_per_class": [0.5, 1.0],
    "val/ekld_per_class": [0.4, 0.1],
}
TRIAL = TrialId("trial", 7)


@pytest.fixture
def paths(tmp_path) -> StudyPaths:
    paths = StudyPaths(tmp_path, "study")
    paths.create()
    for trial in (TRIAL, BASELINE):
        directory = paths.trial(trial)
        directory.mkdir(parents=True)
        RowsFile(directory / "rows.jsonl", [ROW])
        described = {"title": "study", "classes": {"names": ["cat", "dog"], "sizes": [3, 30]}}
        (directory / "trial.json").write_text(json.dumps(described))
    return paths


@pytest.fixture
def open_tracker(paths):
    warnings: list[str] = []

    def open_(identity: str = "one") -> Tracker:
        tracker = Tracker(paths, tracking_uri(paths, None), identity, {"gitdist.data": "abc"}, warnings.append)
        tracker.warnings = warnings
        return tracker

    return open_


@pytest.fixture
def client(paths) -> MlflowClient:
    return MlflowClient(tracking_uri(paths, None))


def test_a_trial_keeps_its_one_run_whichever_driver_logs_it(open_tracker, client):
    for _ in range(2):
        tracker = open_tracker()
        for trial in (TRIAL, BASELINE):
            tracker.trial_started(trial, {"fraction": 0.5})
            tracker.epoch_ended(trial, ROW)
    runs = client.search_runs([tracker.experiment_id])
    tags = sorted((run.data.tags["gitdist.role"], run.data.tags.get("gitdist.trial")) for run in runs)
    assert tags == [("baseline", None), ("study", None), ("trial", "7")]
    assert all(run.data.tags["gitdist.data"] == "abc" for run in runs)


def test_statuses_are_true(open_tracker, client):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    tracker.trial_started(BASELINE, {})
    by_role = {run.data.tags["gitdist.role"]: run for run in client.search_runs([tracker.experiment_id])}
    assert {run.info.status for run in by_role.values()} == {"RUNNING"}
    tracker.trial_ended(TRIAL, Outcome("failed", ROW, "loss became nan in epoch 2, step 3"))
    tracker.trial_ended(BASELINE, Outcome("finished", ROW))
    by_role = {run.data.tags["gitdist.role"]: run for run in client.search_runs([tracker.experiment_id])}
    assert (by_role["trial"].info.status, by_role["baseline"].info.status) == ("FAILED", "FINISHED")
    assert by_role["trial"].data.tags["gitdist.reason"] == "loss became nan in epoch 2, step 3"


def test_scalars_are_logged_by_epoch_and_tables_as_files(open_tracker, client):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {"fraction": 0.5})
    tracker.epoch_ended(TRIAL, ROW)
    tracker.trial_ended(TRIAL, Outcome("finished", ROW))
    (run,) = [r for r in client.search_runs([tracker.experiment_id]) if r.data.tags["gitdist.role"] == "trial"]
    assert run.data.metrics == {"train/loss": 0.5, "val/balanced_accuracy": 0.75, "val/ekld": 0.25}
    assert run.data.params == {"fraction": "0.5"}
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val/ekld")] == [1]
    files = {entry.path for entry in client.list_artifacts(run.info.run_id)}
    assert files == {"rows.jsonl", "per_class.parquet", "per_class.png"}


def test_a_study_begun_anew_under_an_old_name_gets_runs_of_its_own(open_tracker, client):
    for identity, fraction in (("one", 0.5), ("two", 0.9)):
        tracker = open_tracker(identity)
        tracker.trial_started(TRIAL, {"fraction": fraction})
    trials = [r for r in client.search_runs([tracker.experiment_id]) if r.data.tags["gitdist.role"] == "trial"]
    assert {run.data.params["fraction"] for run in trials} == {"0.5", "0.9"}
    assert tracker.warnings == []


def test_an_event_brings_the_run_up_to_the_rows_file_and_logs_nothing_twice(open_tracker, client, paths):
    rows = [{**ROW, "epoch": epoch} for epoch in (1, 2, 3)]
    first = open_tracker()
    first.trial_started(TRIAL, {})
    first.epoch_ended(TRIAL, rows[0])
    RowsFile(paths.trial(TRIAL) / "rows.jsonl", rows)
    again = open_tracker()
    again.trial_started(TRIAL, {})
    again.epoch_ended(TRIAL, rows[2])
    again.epoch_ended(TRIAL, rows[2])
    (run,) = [r for r in client.search_runs([again.experiment_id]) if r.data.tags["gitdist.role"] == "trial"]
    steps = [metric.step for metric in client.get_metric_history(run.info.run_id, "val/ekld")]
    assert sorted(steps) == [1, 2, 3]


def test_a_store_that_fails_while_the_study_runs_is_reported_once_and_does_not_stop_it(open_tracker, paths):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    paths.tracking_db.write_bytes(b"no database any more" * 1000)
    tracker.epoch_ended(TRIAL, ROW)
    tracker.trial_ended(TRIAL, Outcome("finished", ROW))
    assert len(tracker.warnings) == 1
    assert "MLflow" in tracker.warnings[0] and "\n" not in tracker.warnings[0]


def test_what_a_stopped_driver_left_open_is_closed_as_killed_and_runs_again_later(open_tracker, client):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    tracker.stopped("KILLED")
    assert {run.info.status for run in client.search_runs([tracker.experiment_id])} == {"KILLED"}
    again = open_tracker()
    again.trial_started(TRIAL, {})
    runs = client.search_runs([again.experiment_id])
    assert len(runs) == 2 and {run.info.status for run in runs} == {"RUNNING"}


def test_a_trial_evaluated_by_a_later_driver_is_finished(open_tracker, client):
    first = open_tracker()
    first.trial_started(TRIAL, {})
    first.trial_ended(TRIAL, Outcome("finished", ROW))
    again = open_tracker()
    again.test_evaluated(TRIAL, {"test/ekld": 0.5})
    (run,) = [r for r in client.search_runs([again.experiment_id]) if r.data.tags["gitdist.role"] == "trial"]
    assert run.info.status == "FINISHED" and run.data.metrics["test/ekld"] == 0.5


def test_the_environment_and_the_spec_choose_another_store(paths, monkeypatch):
    assert tracking_uri(paths, None) == f"sqlite:///{paths.tracking_db}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri(paths, None) == "http://127.0.0.1:1"
    assert tracking_uri(paths, "sqlite:///other.db") == "sqlite:///other.db"


def test_a_store_that_cannot_be_opened_is_named_in_one_line(paths):
    with pytest.raises(StudyError) as caught:
        Tracker(paths, "sqlite:////proc/nowhere/mlflow.db", "one", {}, print)
    assert "/proc/nowhere" in str(caught.value) and "\n" not in str(caught.value)
