import json
import shutil
import threading

import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from gitdist.errors import SpecError, StudyError
from gitdist.generator.base import TrainingStep
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.files.rows import RowsFile
from gitdist.study.monitoring.mlflow.content import trial_content
from gitdist.study.monitoring.mlflow.tracker import Tracker
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from tests.processes import forkserver
from tests.study.monitoring.mlflow.conftest import ROW, TRIAL, rows, write_rows
from tests.waiting import until

PROCESSES = forkserver(__name__)


def step(number: int) -> TrainingStep:
    return TrainingStep(step=number, total=40, losses={"image": 1 / number, "gan": 0.5}, elapsed_s=0.0)


def test_a_trial_keeps_its_one_run_whichever_driver_logs_it(open_tracker, runs):
    for _ in range(2):
        tracker = open_tracker()
        for trial in (TRIAL, BASELINE):
            tracker.trial_started(trial, {"fraction": 0.5})
            tracker.epoch_ended(trial, ROW)
        tracker.close()
    found = runs.by_key()
    assert found.keys() == {"study", "baseline", "7"}
    assert all(run.data.tags["gitdist.data"] == "abc" for run in found.values())
    parent = found["study"].info.run_id
    assert {found[key].data.tags["mlflow.parentRunId"] for key in ("baseline", "7")} == {parent}


@pytest.mark.parametrize(
    ("outcome", "status", "tags"),
    [
        (Outcome("finished", ROW), "FINISHED", {}),
        (Outcome("pruned", {**ROW, "epoch": 4}), "FINISHED", {"gitdist.pruned": "4"}),
        (Outcome("pruned"), "FINISHED", {"gitdist.pruned": "1"}),
        (Outcome("failed", None, "loss became nan"), "FAILED", {"gitdist.reason": "loss became nan"}),
        (Outcome("interrupted", ROW), "KILLED", {}),
    ],
)
def test_statuses_are_true(open_tracker, runs, outcome, status, tags):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    assert tracker.flush()
    assert runs.statuses() == {"study": "RUNNING", "7": "RUNNING"}
    tracker.trial_ended(TRIAL, outcome)
    assert tracker.flush()
    run = runs.by_key()["7"]
    assert run.info.status == status
    assert {name: run.data.tags.get(name) for name in tags} == tags


def test_a_failure_that_was_mended_is_not_told_any_more(open_tracker, runs):
    """The baseline is tried again in place."""
    first = open_tracker()
    first.reconcile({BASELINE: ({}, Outcome("failed", reason="the disk was full"))})
    first.close()
    assert runs.by_key()["baseline"].data.tags["gitdist.reason"] == "the disk was full"
    again = open_tracker()
    again.trial_started(BASELINE, {})
    again.trial_ended(BASELINE, Outcome("finished"))
    assert again.flush()
    run = runs.by_key()["baseline"]
    assert run.info.status == "FINISHED" and "gitdist.reason" not in run.data.tags


def test_scalars_are_logged_by_epoch_and_tables_as_files(open_tracker, runs):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {"fraction": 0.5})
    tracker.epoch_ended(TRIAL, ROW)
    tracker.trial_ended(TRIAL, Outcome("finished", ROW))
    assert tracker.flush()
    run = runs.by_key()["7"]
    assert run.data.metrics == {"train/loss": 0.5, "val/balanced_accuracy": 0.75, "val/ekld": 1.0}
    assert run.data.params == {"fraction": "0.5"}
    assert runs.steps("7") == [1]
    (point,) = runs.client.get_metric_history(run.info.run_id, "val/ekld")
    assert point.timestamp == 1000 * (ROW["ended_at"] + 1)
    assert runs.files("7") == {"rows.jsonl", "per_class.parquet", "per_class.png"}


def test_a_study_begun_anew_under_an_old_name_gets_runs_of_its_own(open_tracker, runs):
    for identity, fraction in (("one", 0.5), ("two", 0.9)):
        tracker = open_tracker(identity)
        tracker.trial_started(TRIAL, {"fraction": fraction})
        tracker.close()
    trials = [run for run in runs.all() if run.data.tags["gitdist.role"] == "trial"]
    assert {run.data.params["fraction"] for run in trials} == {"0.5", "0.9"}
    assert open_tracker.warnings == []


def test_the_run_is_brought_up_to_the_rows_file_and_nothing_is_logged_twice(open_tracker, runs, paths):
    first = open_tracker()
    first.trial_started(TRIAL, {})
    first.close()
    write_rows(paths, TRIAL, 400)  # more metrics than MLflow takes at once
    again = open_tracker()
    again.trial_started(TRIAL, {})
    for _ in range(3):
        again.epoch_ended(TRIAL, ROW)
        assert again.flush()
    write_rows(paths, TRIAL, 399)  # its worker was killed, and goes on from the checkpoint before
    again.epoch_ended(TRIAL, ROW)
    write_rows(paths, TRIAL, 401)
    again.epoch_ended(TRIAL, ROW)
    assert again.flush()
    assert runs.steps("7") == list(range(1, 402))
    assert runs.by_key()["7"].data.tags["gitdist.last_step"] == "401"


def test_a_store_that_fails_while_the_study_runs_is_told_once_and_caught_up_with(open_tracker, runs, paths):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    assert tracker.flush()
    whole = paths.tracking_db.read_bytes()
    paths.tracking_db.write_bytes(b"no database any more" * 1000)
    tracker.epoch_ended(TRIAL, ROW)
    tracker.trial_ended(TRIAL, Outcome("finished", ROW))
    until(lambda: open_tracker.warnings)
    assert not tracker.flush(0.1)
    (warning,) = open_tracker.warnings
    assert warning.startswith(f"MLflow at sqlite:///{paths.tracking_db} cannot be written (") and "\n" not in warning
    assert "the study goes on" in warning
    paths.tracking_db.write_bytes(whole)
    assert tracker.flush()
    assert runs.statuses()["7"] == "FINISHED" and runs.steps("7") == [1]
    assert len(open_tracker.warnings) == 2 and "is back" in open_tracker.warnings[1]


def test_what_a_stopped_driver_left_open_is_killed_and_runs_again_later(open_tracker, runs):
    tracker = open_tracker()
    tracker.generator_started({})
    tracker.generator_failed()
    tracker.trial_started(TRIAL, {})
    tracker.close("FAILED")
    assert runs.statuses() == {"study": "FAILED", "generator": "FAILED", "7": "KILLED"}
    again = open_tracker()
    again.trial_started(TRIAL, {})
    assert again.flush()
    assert runs.statuses() == {"study": "RUNNING", "generator": "FAILED", "7": "RUNNING"}


def test_a_store_that_comes_back_empty_gets_everything_again(open_tracker, runs, paths, empty_store):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    tracker.trial_ended(TRIAL, Outcome("finished", ROW))
    assert tracker.flush()
    shutil.copy(empty_store, paths.tracking_db)
    tracker.trial_ended(BASELINE, Outcome("finished", ROW))
    assert tracker.flush()
    assert runs.statuses() == {"study": "RUNNING", "7": "FINISHED", "baseline": "FINISHED"}
    assert runs.steps("7") == runs.steps("baseline") == [1]


def test_a_deleted_experiment_comes_back(open_tracker, runs, paths):
    tracker = open_tracker()
    tracker.trial_ended(TRIAL, Outcome("finished", ROW))
    tracker.close("FINISHED")
    before = runs.contents()
    runs.client.delete_experiment(runs.client.get_experiment_by_name("study").experiment_id)
    assert runs.all() == []
    open_tracker().close("FINISHED")
    assert runs.contents() == before


def test_a_trial_evaluated_by_a_later_driver_is_finished(open_tracker, runs, paths):
    (paths.trial(TRIAL) / "test.json").write_text(json.dumps({"metrics": {"test/ekld": 0.5}}))
    tracker = open_tracker()
    tracker.test_evaluated(TRIAL)
    tracker.close()
    run = runs.by_key()["7"]
    assert run.info.status == "FINISHED" and run.data.metrics["test/ekld"] == 0.5


def begin_and_wait(paths, told) -> None:
    """Do what a driver does until it is killed."""
    tracker = Tracker(paths, tracking_uri(paths, None), "one", {"gitdist.data": "abc"}, print)
    tracker.generator_started({})
    for number in (0, 1, 2, 99):
        tracker.trial_started(TrialId("trial", number), {"fraction": 0.5})
    if tracker.flush():
        told.set()
    threading.Event().wait()


def test_a_driver_that_comes_after_a_killed_one_leaves_no_lie(open_tracker, runs, paths):
    """A process is killed between two events; the ledger says more than it told MLflow."""
    told = PROCESSES.Event()
    dead = PROCESSES.Process(target=begin_and_wait, args=(paths, told))
    dead.start()
    assert told.wait(60)
    dead.kill()
    dead.join()
    assert set(runs.statuses().values()) == {"RUNNING"}
    for number in range(4):
        write_rows(paths, TrialId("trial", number), 3)
    tracker = open_tracker()
    tracker.reconcile(
        {
            TrialId("trial", 0): ({"fraction": 0.5}, Outcome("finished")),
            TrialId("trial", 1): ({"fraction": 0.5}, Outcome("failed", reason="lost")),
            TrialId("trial", 2): ({"fraction": 0.5}, None),
            TrialId("trial", 3): ({"fraction": 0.9}, Outcome("pruned")),
        }
    )
    assert tracker.flush()
    killed = {key: "KILLED" for key in ("generator", "2", "99")}
    assert runs.statuses() == {"study": "RUNNING", "0": "FINISHED", "1": "FAILED", "3": "FINISHED", **killed}
    assert [runs.steps(str(number)) for number in range(4)] == [[1, 2, 3]] * 4
    tracker.trial_started(TrialId("trial", 2), {"fraction": 0.5})
    tracker.close("FAILED")
    assert runs.statuses()["study"] == "FAILED" and "RUNNING" not in runs.statuses().values()


def test_what_agrees_already_is_neither_read_nor_written_again(open_tracker, runs, monkeypatch):
    states = {TrialId("trial", number): ({"fraction": 0.5}, Outcome("finished")) for number in range(3)}
    first = open_tracker()
    first.reconcile(states)
    first.close()
    asked: list[str] = []
    for name in ("log_batch", "create_run", "get_metric_history", "log_artifacts", "set_terminated", "search_runs"):
        real = getattr(MlflowClient, name)

        def noting(*args, real=real, name=name, **kwargs):
            asked.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, noting)
    again = open_tracker()
    asked.clear()
    again.reconcile(states)
    assert again.flush()
    assert asked == ["search_runs"]


def test_of_runs_made_twice_the_oldest_stays(open_tracker, runs):
    first = open_tracker()
    first.trial_started(TRIAL, {})
    first.close()
    (oldest,) = [run for run in runs.all() if run.data.tags["gitdist.role"] == "trial"]
    tags = {name: value for name, value in oldest.data.tags.items() if name.startswith(("gitdist.", "mlflow.parent"))}
    for _ in range(2):
        runs.client.create_run(oldest.info.experiment_id, tags=tags)
    again = open_tracker()
    again.reconcile({TRIAL: ({}, Outcome("finished"))})
    assert again.flush()
    run = runs.by_key()["7"]
    assert run.info.run_id == oldest.info.run_id and run.info.status == "FINISHED"


def test_two_drivers_that_race_agree_on_one_run(open_tracker, runs, monkeypatch):
    real = MlflowClient.create_run

    def raced(client, experiment, **fields):
        other = real(client, experiment, **fields)  # another driver's, at the same moment and quicker
        if "gitdist.trial" in fields["tags"]:
            client.log_batch(other.info.run_id, [Metric(name, 0.5, 0, 1) for name in ("train/loss", "val/ekld")])
            fields["start_time"] = other.info.start_time + 1
        return real(client, experiment, **fields)

    monkeypatch.setattr(MlflowClient, "create_run", raced)
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    tracker.trial_ended(TRIAL, Outcome("finished"))
    assert tracker.flush()
    assert runs.statuses() == {"study": "RUNNING", "7": "FINISHED"} and runs.steps("7") == [1]


def test_a_write_whose_answer_is_lost_is_not_doubled(open_tracker, runs, paths, monkeypatch):
    real, lost = MlflowClient.log_batch, []

    def losing(client, run_id, *fields, **more):
        real(client, run_id, *fields, **more)
        if len(lost) < 3:
            lost.append(run_id)
            raise ConnectionResetError("no answer")

    write_rows(paths, TRIAL, 600)  # several batches
    undated = [{name: value for name, value in row.items() if name != "ended_at"} for row in rows(600)]
    RowsFile(paths.rows(TRIAL), undated).close()  # a store tells a doubled write of dated rows by itself
    tracker = open_tracker()
    monkeypatch.setattr(MlflowClient, "log_batch", losing)
    tracker.trial_started(TRIAL, {"fraction": 0.5})
    tracker.trial_ended(TRIAL, Outcome("finished"))
    assert tracker.flush()
    assert len(lost) == 3 and len(open_tracker.warnings) == 2
    assert runs.steps("7") == list(range(1, 601)) and runs.statuses()["7"] == "FINISHED"


def test_a_place_for_files_that_fails_keeps_no_status_from_being_true_and_the_next_driver_adds_them(
    open_tracker, runs, monkeypatch
):
    real, full = MlflowClient.log_artifacts, [True]

    def failing(client, *args, **kwargs):
        if full:
            raise OSError(28, "No space left on device")
        return real(client, *args, **kwargs)

    monkeypatch.setattr(MlflowClient, "log_artifacts", failing)
    tracker = open_tracker()
    tracker.trial_ended(TRIAL, Outcome("finished"))
    until(lambda: open_tracker.warnings)
    tracker.close(patience_s=0.1)
    assert runs.statuses()["7"] == "FINISHED" and runs.files("7") == set()
    assert "No space left on device" in open_tracker.warnings[0]
    full.clear()
    again = open_tracker()
    again.reconcile({TRIAL: ({}, Outcome("finished"))})
    assert again.flush()
    assert runs.files("7") == {"rows.jsonl", "per_class.parquet", "per_class.png"}


def test_the_generators_losses_are_there_once_however_often_its_training_was_interrupted(open_tracker, runs, paths):
    paths.samples.write_bytes(b"picture")
    first = open_tracker()
    first.generator_started({"dim": 4})
    first.generator_stepped([step(10)])
    first.generator_stepped([step(20)])
    first.close()
    assert runs.statuses()["generator"] == "KILLED"
    again = open_tracker()
    again.trial_started(TRIAL, {})
    again.generator_started({"dim": 4})
    again.generator_stepped([step(20), step(30)])
    again.generator_ended("munit-abc", [step(number) for number in (10, 20, 30, 40)], paths.samples)
    assert again.flush()
    assert runs.steps("generator", "image") == [10, 20, 30, 40]
    assert runs.files("generator") == {"samples.png"}
    found = runs.by_key()
    assert found["generator"].info.status == "FINISHED" and found["generator"].data.params == {"dim": "4"}
    assert {run.data.tags["gitdist.generator"] for run in found.values()} == {"munit-abc"}


def test_the_parent_run_has_the_summary_and_no_password(open_tracker, runs, paths):
    chosen = {"number": 7, "params": {"fraction": 0.5}, "val": {"val/ekld": 0.25}, "test": {"test/ekld": 0.5}}
    summary = {"study": "study", "wall_s": 4.0, "trials": {"finished": 8}, "best": chosen, "baseline": None}
    paths.summary.write_text(json.dumps(summary))
    paths.spec.write_text("tracking: {uri: 'https://me:secret@host/mlflow'}\n")
    for _ in range(2):
        tracker = open_tracker()
        tracker.study_ended(summary)
        tracker.close()
    run = runs.by_key()["study"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"wall_s": 4.0, "best/val/ekld": 0.25, "best/test/ekld": 0.5}
    assert runs.steps("study", "wall_s") == [8]
    assert "trial 7 (fraction = 0.5)" in run.data.tags["mlflow.note.content"]
    place = paths.artefacts / "study" / run.info.run_id / "artifacts" / "study.yaml"
    assert place.read_text() == "tracking: {uri: 'https://me:***@host/mlflow'}\n"


def test_the_parent_run_has_the_gap_to_the_baseline_with_its_standard_error(open_tracker, runs):
    def chosen(number, accuracy, error):
        val = {"val/balanced_accuracy": accuracy, "val/balanced_accuracy_se": error}
        return {"number": number, "params": {}, "val": val, "test": {}}

    best, baseline = chosen(0, 0.75, 0.3), chosen(None, 0.5, 0.4)
    summary = {"objectives": ["val/balanced_accuracy"], "trials": {"finished": 1}, "best": best, "baseline": baseline}
    tracker = open_tracker()
    tracker.study_ended(summary)
    tracker.close()
    run = runs.by_key()["study"]
    assert run.data.metrics == {
        "best/val/balanced_accuracy": 0.75,
        "best/val/balanced_accuracy_se": 0.3,
        "baseline/val/balanced_accuracy": 0.5,
        "baseline/val/balanced_accuracy_se": 0.4,
        "gap/val/balanced_accuracy": 0.25,
        "gap/val/balanced_accuracy_se": pytest.approx(0.5),
    }
    note = run.data.tags["mlflow.note.content"].splitlines()
    assert "| val/balanced_accuracy | 0.5000 ± 0.4000 | 0.7500 ± 0.3000 |" in note
    assert any("gap +0.2500 ± 0.5000 (± standard error); the gap is smaller" in line for line in note)
    assert not any("_se" in line for line in note)


def test_the_summary_of_a_study_without_a_finished_trial(open_tracker, runs):
    tracker = open_tracker()
    tracker.study_ended({"trials": {"failed": 2}, "best": None, "baseline": None})
    tracker.close()
    assert runs.by_key()["study"].data.tags["mlflow.note.content"] == "No trial finished."


def test_a_driver_that_lost_its_study_writes_nothing_more(open_tracker, runs, monkeypatch):
    real, hanging, answer = MlflowClient.log_batch, threading.Event(), threading.Event()

    def slow(client, *fields, **more):
        hanging.set()
        assert answer.wait(60)
        return real(client, *fields, **more)

    tracker = open_tracker()
    assert tracker.flush()
    monkeypatch.setattr(MlflowClient, "log_batch", slow)
    tracker.trial_ended(TRIAL, Outcome("finished"))
    tracker.trial_ended(BASELINE, Outcome("finished"))
    assert hanging.wait(60)
    tracker.abandon()
    tracker.trial_started(BASELINE, {})
    tracker.study_ended({"best": None, "baseline": None, "trials": {}})
    tracker.close("FAILED")
    assert not answer.is_set()
    answer.set()
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "gitdist-deliveries"])
    assert runs.statuses() == {"study": "RUNNING", "7": "RUNNING"} and runs.steps("7") == [1]
    assert open_tracker.warnings == []


def test_a_run_that_was_just_made_when_the_study_was_lost_goes_again(open_tracker, runs, monkeypatch):
    real, tracker = MlflowClient.create_run, open_tracker()
    assert tracker.flush()

    def make_and_lose(client, *fields, **more):
        made = real(client, *fields, **more)
        threading.Thread(target=tracker.abandon).start()
        until(lambda: tracker.flush(0.0))  # nothing is due any more
        return made

    monkeypatch.setattr(MlflowClient, "create_run", make_and_lose)
    tracker.trial_started(TRIAL, {})
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "gitdist-deliveries"])
    assert runs.statuses() == {"study": "RUNNING"}
    assert open_tracker.warnings == []


def test_nothing_is_printed(open_tracker, paths, capfd):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    assert tracker.flush()
    paths.tracking_db.write_bytes(b"no database any more" * 1000)
    tracker.trial_ended(TRIAL, Outcome("finished"))
    until(lambda: open_tracker.warnings)
    tracker.close(patience_s=0.1)
    assert capfd.readouterr() == ("", "")
    assert "lacks 2 runs' newest figures; `gitdist sync study --results" in open_tracker.warnings[-1]


def test_the_environment_and_the_spec_choose_another_store(paths, monkeypatch):
    assert tracking_uri(paths, None) == f"sqlite:///{paths.tracking_db}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri(paths, None) == "http://127.0.0.1:1"
    assert tracking_uri(paths, "sqlite:///other.db") == "sqlite:///other.db"


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:////proc/nowhere/mlflow.db",
        "htp://host",
        "http://",
        "http://[localhost",
        "file:///srv/runs",
        "postgresql://me:secret@127.0.0.1:1/none",
    ],
)
def test_a_store_that_cannot_be_used_is_named_in_one_line(open_tracker, uri):
    with pytest.raises((SpecError, StudyError)) as caught:
        open_tracker(uri=uri)
    assert uri.replace("secret", "***") in str(caught.value) and "\n" not in str(caught.value)
    assert "tracking.uri" in str(caught.value)


def test_a_database_on_a_server_has_its_files_with_the_results(open_tracker, paths, database, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    uri = database.replace("postgresql:", "postgresql+psycopg:", 1)
    open_tracker(uri=uri).close()
    experiment = MlflowClient(uri).get_experiment_by_name(paths.name)
    assert experiment.artifact_location == (paths.artefacts / paths.name).as_uri()
    assert not (tmp_path / "mlruns").exists()


def test_a_file_that_is_no_database(open_tracker, paths):
    paths.tracking_db.write_bytes(b"no database" * 1000)
    with pytest.raises(StudyError, match="file is not a database"):
        open_tracker()


def test_a_place_for_files_that_cannot_be_written(open_tracker, paths):
    paths.artefacts.write_text("in the way")
    with pytest.raises(StudyError, match="mlartifacts"):
        open_tracker()


def test_a_trials_content_is_read_when_it_is_written(paths):
    content = trial_content(paths, TRIAL, {}, None)
    write_rows(paths, TRIAL, 3)
    assert [point.step for point in content.points()] == [1, 2, 3]


def test_a_runs_length_is_that_of_its_rows(open_tracker, runs, paths):
    """Also where MLflow was down meanwhile and the run was made later."""
    write_rows(paths, TRIAL, 5)
    tracker = open_tracker()
    tracker.reconcile({TRIAL: ({}, Outcome("finished"))})
    assert tracker.flush()
    info = runs.by_key()["7"].info
    assert (info.start_time, info.end_time) == (1000 * (ROW["ended_at"] + 1), 1000 * (ROW["ended_at"] + 5))
