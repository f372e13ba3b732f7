import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image

from gitdist.errors import SpecError, StudyError
from gitdist.generator.base import TrainingStep
from gitdist.study.files.events import Outcome
from gitdist.study.files.json_lines import JsonLinesFile
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.files.rows import open_rows
from gitdist.study.files.times import Times
from gitdist.study.monitoring.mlflow import content
from gitdist.study.monitoring.mlflow.content import trial_run
from gitdist.study.monitoring.mlflow.tracker import Tracker
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from tests.processes import forkserver
from tests.study.monitoring.mlflow.conftest import DESCRIPTION, ROW, TRIAL, flush, rows, write_rows
from tests.waiting import until

PROCESSES = forkserver(__name__)


def count_calls(monkeypatch) -> list[str]:
    """Return a list to which each call of an MLflow client adds its name."""
    calls: list[str] = []
    for name in ("log_batch", "create_run", "get_metric_history", "log_artifacts", "set_terminated", "search_runs"):
        real = getattr(MlflowClient, name)

        def counting(*args, real=real, name=name, **kwargs):
            calls.append(name)
            return real(*args, **kwargs)

        monkeypatch.setattr(MlflowClient, name, counting)
    return calls


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
    assert all(run.data.tags["hash.data"] == "abc" for run in found.values())
    parent = found["study"].info.run_id
    assert {found[key].data.tags["mlflow.parentRunId"] for key in ("baseline", "7")} == {parent}


@pytest.mark.parametrize(
    ("outcome", "status", "tags"),
    [
        (Outcome("finished", 1), "FINISHED", {}),
        (Outcome("pruned", 4), "FINISHED", {"gitdist.pruned": "4"}),
        (Outcome("pruned"), "FINISHED", {"gitdist.pruned": "1"}),
        (Outcome("failed", None, "loss became nan"), "FAILED", {"gitdist.reason": "loss became nan"}),
        (Outcome("interrupted", 1), "KILLED", {}),
    ],
)
def test_statuses_are_true(open_tracker, runs, outcome, status, tags):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    assert flush(tracker)
    assert runs.statuses() == {"study": "RUNNING", "7": "RUNNING"}
    tracker.trial_ended(TRIAL, outcome)
    assert flush(tracker)
    run = runs.by_key()["7"]
    assert run.info.status == status
    assert {name: run.data.tags.get(name) for name in tags} == tags


def test_the_reason_of_a_failure_is_deleted_when_the_trial_succeeds(open_tracker, runs):
    """The baseline is tried again in place."""
    first = open_tracker()
    first.reconcile({BASELINE: ({}, Outcome("failed", reason="the disk was full"))})
    first.close()
    assert runs.by_key()["baseline"].data.tags["gitdist.reason"] == "the disk was full"
    again = open_tracker()
    again.trial_started(BASELINE, {})
    again.trial_ended(BASELINE, Outcome("finished"))
    assert flush(again)
    run = runs.by_key()["baseline"]
    assert run.info.status == "FINISHED" and "gitdist.reason" not in run.data.tags


def test_scalars_are_logged_by_epoch_and_tables_as_files(open_tracker, runs):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {"fraction": 0.5})
    tracker.epoch_ended(TRIAL, ROW)
    tracker.trial_ended(TRIAL, Outcome("finished", 1))
    assert flush(tracker)
    run = runs.by_key()["7"]
    found = {"train/loss": 0.5, "train/accuracy": 0.25, "lr": 0.1, "draws": 0, "waiting_s": 0.0}
    assert run.data.metrics == {**found, "val/balanced_accuracy": 0.75, "val/ekld": 1.0}
    assert run.data.params["fraction"] == "0.5"
    assert runs.steps("7") == [1]
    (point,) = runs.client.get_metric_history(run.info.run_id, "val/ekld")
    assert point.timestamp == 1000 * (ROW.ended_at + 1)
    assert runs.files("7") == {"rows.jsonl", "per_class.parquet", "per_class.png"}


def test_a_value_of_the_rows_is_shown_by_an_entry_of_the_table(open_tracker, runs, monkeypatch):
    monkeypatch.setattr(content, "EPOCH_METRICS", {**content.EPOCH_METRICS, "train_s": "train_s"})
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    assert flush(tracker)  # else the epoch joins the first write, which reads the rows file
    tracker.epoch_ended(TRIAL, replace(rows(2)[-1], train_s=2.5, metrics={"val/new_metric": 0.5}))
    assert flush(tracker)
    metrics = runs.by_key()["7"].data.metrics
    assert (metrics["train_s"], metrics["val/new_metric"]) == (2.5, 0.5)


def test_a_study_begun_anew_under_an_old_name_gets_runs_of_its_own(open_tracker, runs):
    for identity, fraction in (("one", 0.5), ("two", 0.9)):
        tracker = open_tracker(identity)
        tracker.trial_started(TRIAL, {"fraction": fraction})
        tracker.close()
    trials = [run for run in runs.all() if run.data.tags["gitdist.role"] == "trial"]
    assert {run.data.params["fraction"] for run in trials} == {"0.5", "0.9"}
    assert open_tracker.warnings == []


def test_the_run_has_each_epoch_of_the_rows_file_and_of_the_driver_once(open_tracker, runs, paths):
    first = open_tracker()
    first.trial_started(TRIAL, {})
    first.close()
    write_rows(paths, TRIAL, 400)  # more metrics than MLflow takes at once
    again = open_tracker()
    again.trial_started(TRIAL, {})
    for row in rows(402)[397:]:  # completed epochs come again after an interruption
        again.epoch_ended(TRIAL, row)
        assert flush(again)
    again.epoch_ended(TRIAL, rows(402)[-1])  # its worker was killed, and resumed from the checkpoint before
    write_rows(paths, TRIAL, 402)
    again.trial_ended(TRIAL, Outcome("finished"))
    assert flush(again)
    assert runs.steps("7") == list(range(1, 403))
    assert runs.by_key()["7"].data.tags["gitdist.last_step"] == "402"


def test_an_epoch_is_appended_without_reading_the_files_of_its_trial(open_tracker, runs, paths, monkeypatch):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    assert flush(tracker)
    paths.rows(TRIAL).write_text("not read")
    calls = count_calls(monkeypatch)
    for row in rows(4)[1:]:
        tracker.epoch_ended(TRIAL, row)
        assert flush(tracker)
    assert calls == ["log_batch"] * 3
    assert runs.steps("7") == runs.steps("7", "train/loss") == [1, 2, 3, 4]
    run = runs.by_key()["7"].info.run_id
    points = runs.client.get_metric_history(run, "val/ekld")
    assert [(point.value, point.timestamp) for point in points] == [
        (row.metrics["val/ekld"], int(1000 * row.ended_at)) for row in rows(4)
    ]


def test_epochs_of_an_outage_come_from_the_rows_file(open_tracker, runs, paths, monkeypatch):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    assert flush(tracker)
    write_rows(paths, TRIAL, 4)

    def down(*_, **__):
        raise MlflowException("no answer")

    with monkeypatch.context() as outage:
        outage.setattr(MlflowClient, "log_batch", down)
        outage.setattr(MlflowClient, "search_experiments", down)
        tracker.epoch_ended(TRIAL, rows(2)[-1])
        until(lambda: open_tracker.warnings)
    tracker.epoch_ended(TRIAL, rows(4)[-1])
    assert flush(tracker)
    assert runs.steps("7") == [1, 2, 3, 4]


@pytest.mark.parametrize("field", ["epoch", "train_s"])
def test_a_damaged_row_is_reported_once_as_that_and_holds_up_no_other_run(open_tracker, runs, paths, field):
    damaged = [{name: value for name, value in row.to_json().items() if name != field} for row in rows(1)]
    JsonLinesFile(paths.rows(TRIAL), damaged).close()
    tracker = open_tracker()
    tracker.reconcile({TRIAL: ({}, Outcome("finished")), BASELINE: ({}, Outcome("finished"))})
    assert flush(tracker)
    tracker.monitor_logged()
    tracker.trial_ended(TRIAL, Outcome("finished"))
    assert flush(tracker)
    (warning,) = open_tracker.warnings
    assert f"{paths.rows(TRIAL)}, line 1" in warning and f"'{field}'" in warning
    assert runs.statuses() == {"study": "RUNNING", "baseline": "FINISHED"}
    write_rows(paths, TRIAL, 1)
    tracker.trial_ended(TRIAL, Outcome("finished"))
    assert flush(tracker)
    assert runs.statuses()["7"] == "FINISHED" and len(open_tracker.warnings) == 1


def test_a_store_that_fails_while_the_study_runs_is_reported_once_and_completed_later(open_tracker, runs, paths):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    assert flush(tracker)
    whole = paths.tracking_db.read_bytes()
    paths.tracking_db.write_bytes(b"no database any more" * 1000)
    tracker.epoch_ended(TRIAL, ROW)
    tracker.trial_ended(TRIAL, Outcome("finished", 1))
    until(lambda: open_tracker.warnings)
    assert not flush(tracker, 0.1)
    (warning,) = open_tracker.warnings
    assert warning.startswith(f"MLflow at sqlite:///{paths.tracking_db} cannot be written (") and "\n" not in warning
    assert "the study continues" in warning
    paths.tracking_db.write_bytes(whole)
    assert flush(tracker)
    assert runs.statuses()["7"] == "FINISHED" and runs.steps("7") == [1]
    assert len(open_tracker.warnings) == 2 and "up to date again" in open_tracker.warnings[1]


def test_what_a_stopped_driver_left_open_is_killed_and_runs_again_later(open_tracker, runs):
    tracker = open_tracker()
    tracker.generator_started()
    tracker.generator_failed()
    tracker.trial_started(TRIAL, {})
    tracker.close("FAILED")
    assert runs.statuses() == {"study": "FAILED", "generator": "FAILED", "7": "KILLED"}
    again = open_tracker()
    again.trial_started(TRIAL, {})
    assert flush(again)
    assert runs.statuses() == {"study": "RUNNING", "generator": "FAILED", "7": "RUNNING"}


def test_a_store_that_comes_back_empty_gets_everything_again(open_tracker, runs, paths, empty_store):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    tracker.trial_ended(TRIAL, Outcome("finished", 1))
    assert flush(tracker)
    shutil.copy(empty_store, paths.tracking_db)
    tracker.trial_ended(BASELINE, Outcome("finished", 1))
    assert flush(tracker)
    assert runs.statuses() == {"study": "RUNNING", "7": "FINISHED", "baseline": "FINISHED"}
    assert runs.steps("7") == runs.steps("baseline") == [1]


def test_a_deleted_experiment_comes_back(open_tracker, runs, paths):
    tracker = open_tracker()
    tracker.trial_ended(TRIAL, Outcome("finished", 1))
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


def begin_and_wait(paths, written) -> None:
    """Do what a driver does until it is killed."""
    tracker = Tracker(paths, tracking_uri(paths, None), "one", DESCRIPTION, print)
    tracker.generator_started()
    for number in (0, 1, 2, 99):
        tracker.trial_started(TrialId("trial", number), {"fraction": 0.5})
    if flush(tracker):
        written.set()
    threading.Event().wait()


def test_the_driver_after_a_killed_one_corrects_all_runs(open_tracker, runs, paths):
    """A process is killed between two events; the ledger knows more than MLflow."""
    written = PROCESSES.Event()
    dead = PROCESSES.Process(target=begin_and_wait, args=(paths, written))
    dead.start()
    assert written.wait(60)
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
    assert flush(tracker)
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
    calls = count_calls(monkeypatch)
    again = open_tracker()
    calls.clear()
    again.reconcile(states)
    assert flush(again)
    assert calls == ["search_runs"]


def test_of_runs_made_twice_the_oldest_stays(open_tracker, runs):
    first = open_tracker()
    first.trial_started(TRIAL, {})
    first.close()
    (oldest,) = [run for run in runs.all() if run.data.tags["gitdist.role"] == "trial"]
    tags = {
        name: value
        for name, value in oldest.data.tags.items()
        if name.startswith(("gitdist.", "hash.", "mlflow.parent"))
    }
    for _ in range(2):
        runs.client.create_run(oldest.info.experiment_id, tags=tags)
    again = open_tracker()
    again.reconcile({TRIAL: ({}, Outcome("finished"))})
    assert flush(again)
    run = runs.by_key()["7"]
    assert run.info.run_id == oldest.info.run_id and run.info.status == "FINISHED"


def test_two_drivers_that_race_agree_on_one_run(open_tracker, runs, monkeypatch):
    real = MlflowClient.create_run

    def raced(client, experiment, **fields):
        other = real(client, experiment, **fields)  # another driver's, at the same moment and quicker
        if "gitdist.trial" in fields["tags"]:
            client.log_batch(
                other.info.run_id, [Metric(name, 0.5, 0, 1) for name in content.StepMetrics.of_row(ROW).values]
            )
            fields["start_time"] = other.info.start_time + 1
        return real(client, experiment, **fields)

    monkeypatch.setattr(MlflowClient, "create_run", raced)
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    tracker.trial_ended(TRIAL, Outcome("finished"))
    assert flush(tracker)
    assert runs.statuses() == {"study": "RUNNING", "7": "FINISHED"} and runs.steps("7") == [1]


def test_a_write_whose_answer_is_lost_is_not_doubled(open_tracker, runs, paths, monkeypatch):
    real, lost = MlflowClient.log_batch, []

    def losing(client, run_id, *fields, **more):
        real(client, run_id, *fields, **more)
        if len(lost) < 3:
            lost.append(run_id)
            raise ConnectionResetError("no answer")

    write_rows(paths, TRIAL, 600)  # several batches
    undated = [replace(row, ended_at=None) for row in rows(600)]
    open_rows(paths.rows(TRIAL), undated).close()  # a store tells a doubled write of dated rows by itself
    tracker = open_tracker()
    monkeypatch.setattr(MlflowClient, "log_batch", losing)
    tracker.trial_started(TRIAL, {"fraction": 0.5})
    tracker.trial_ended(TRIAL, Outcome("finished"))
    assert flush(tracker)
    assert len(lost) == 3 and len(open_tracker.warnings) == 2
    assert runs.steps("7") == list(range(1, 601)) and runs.statuses()["7"] == "FINISHED"


def test_statuses_are_true_if_files_cannot_be_written_and_the_next_driver_adds_the_files(
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
    tracker.close(timeout_s=0.1)
    assert runs.statuses()["7"] == "FINISHED" and runs.files("7") == set()
    assert "No space left on device" in open_tracker.warnings[0]
    full.clear()
    again = open_tracker()
    again.reconcile({TRIAL: ({}, Outcome("finished"))})
    assert flush(again)
    assert runs.files("7") == {"rows.jsonl", "per_class.parquet", "per_class.png"}


def test_the_generators_losses_are_there_once_however_often_its_training_was_interrupted(open_tracker, runs, paths):
    Image.new("L", (1, 1)).save(paths.samples)
    first = open_tracker()
    first.generator_started()
    first.generator_stepped([step(10)])
    first.generator_stepped([step(20)])
    first.close()
    assert runs.statuses()["generator"] == "KILLED"
    again = open_tracker()
    again.trial_started(TRIAL, {})
    again.generator_started()
    again.generator_stepped([step(20), step(30)])
    again.generator_ended("munit-abc", [step(number) for number in (10, 20, 30, 40)])
    again.close()
    assert runs.steps("generator", "image") == [10, 20, 30, 40]
    assert runs.files("generator") == {"samples.png"}
    found = runs.by_key()
    assert found["generator"].info.status == "FINISHED" and found["generator"].data.params["generator.kind"] == "munit"
    assert {run.data.tags["hash.generator"] for run in found.values()} == {"munit-abc"}


def test_the_parent_run_has_the_summary_and_no_password(open_tracker, runs, paths):
    chosen = {"number": 7, "params": {"fraction": 0.5}, "val": {"val/ekld": 0.25}, "test": {"test/ekld": 0.5}}
    summary = {"study": "study", "objectives": ["val/ekld"], "wall_s": 4.0, "trials": {"finished": 8}}
    summary |= {"best": chosen, "baseline": None}
    paths.summary.write_text(json.dumps(summary))
    paths.spec.write_text("tracking: {uri: 'https://me:secret@host/mlflow'}\n")
    for _ in range(2):
        tracker = open_tracker()
        tracker.study_ended(summary)
        tracker.close()
    run = runs.by_key()["study"]
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"best/val/ekld": 0.25, "best/test/ekld": 0.5}
    assert runs.steps("study", "best/test/ekld") == [8]
    assert runs.files("study") >= {"results.csv", "costs.csv", "summary.json"}
    assert "trial 7 (fraction = 0.5)" in run.data.tags["mlflow.note.content"]
    place = paths.artifacts / "study" / run.info.run_id / "artifacts" / "study.yaml"
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
        "baseline/val/balanced_accuracy": 0.5,
        "gap/val/balanced_accuracy": 0.25,
        "gap/val/balanced_accuracy_se": pytest.approx(0.5),
    }
    note = run.data.tags["mlflow.note.content"].splitlines()
    assert any("balanced_accuracy" in line and "0.5000 ± 0.4000" in line and "0.7500 ± 0.3000" in line for line in note)
    assert any("gap +0.2500 ± 0.5000 (± standard error); the gap is smaller" in line for line in note)
    assert not any("_se" in line for line in note)


def test_the_summary_of_a_study_without_a_finished_trial(open_tracker, runs):
    tracker = open_tracker()
    tracker.study_ended({"trials": {"failed": 2}, "best": None, "baseline": None})
    tracker.close()
    assert runs.by_key()["study"].data.tags["mlflow.note.content"].startswith("No trial finished.")


def test_a_driver_that_lost_its_study_writes_nothing_more(open_tracker, runs, monkeypatch):
    real, hanging, answer = MlflowClient.log_batch, threading.Event(), threading.Event()

    def slow(client, *fields, **more):
        hanging.set()
        assert answer.wait(60)
        return real(client, *fields, **more)

    tracker = open_tracker()
    assert flush(tracker)
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
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "gitdist-outbox"])
    assert runs.statuses() == {"study": "RUNNING", "7": "RUNNING"} and runs.steps("7") == [1]
    assert open_tracker.warnings == []


def test_a_run_that_was_just_made_when_the_study_was_lost_goes_again(open_tracker, runs, monkeypatch):
    real, tracker = MlflowClient.create_run, open_tracker()
    assert flush(tracker)

    def make_and_lose(client, *fields, **more):
        made = real(client, *fields, **more)
        threading.Thread(target=tracker.abandon).start()
        until(lambda: flush(tracker, 0.0))  # nothing is due any more
        return made

    monkeypatch.setattr(MlflowClient, "create_run", make_and_lose)
    tracker.trial_started(TRIAL, {})
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "gitdist-outbox"])
    assert runs.statuses() == {"study": "RUNNING"}
    assert open_tracker.warnings == []


def test_nothing_is_printed(open_tracker, paths, capfd):
    tracker = open_tracker()
    tracker.trial_started(TRIAL, {})
    assert flush(tracker)
    paths.tracking_db.write_bytes(b"no database any more" * 1000)
    tracker.trial_ended(TRIAL, Outcome("finished"))
    until(lambda: open_tracker.warnings)
    tracker.close(timeout_s=0.1)
    assert capfd.readouterr() == ("", "")
    assert " 2 runs; " in open_tracker.warnings[-1] and "gitdist sync study --results" in open_tracker.warnings[-1]


def test_the_environment_and_the_spec_choose_another_store(paths, monkeypatch):
    assert tracking_uri(paths, None) == f"sqlite:///{paths.tracking_db}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri(paths, None) == "http://127.0.0.1:1"
    assert tracking_uri(paths, "sqlite:///other.db") == f"sqlite:///{Path.cwd()}/other.db"


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
    assert experiment.artifact_location == (paths.artifacts / paths.name).as_uri()
    assert not (tmp_path / "mlruns").exists()


def test_a_file_that_is_no_database(open_tracker, paths):
    paths.tracking_db.write_bytes(b"no database" * 1000)
    with pytest.raises(StudyError, match="file is not a database"):
        open_tracker()


def test_an_artifact_directory_that_cannot_be_written(open_tracker, paths):
    paths.artifacts.write_text("in the way")
    with pytest.raises(StudyError, match="mlartifacts"):
        open_tracker()


def test_a_desired_run_is_read_when_it_is_written(paths):
    desired = trial_run(paths, TRIAL, {}, None, Times(paths))
    write_rows(paths, TRIAL, 3)
    assert [step.step for step in desired.steps()] == [1, 2, 3]


def test_a_runs_length_is_that_of_its_rows(open_tracker, runs, paths):
    """Also where MLflow was down meanwhile and the run was made later."""
    write_rows(paths, TRIAL, 5)
    tracker = open_tracker()
    tracker.reconcile({TRIAL: ({}, Outcome("finished"))})
    assert flush(tracker)
    info = runs.by_key()["7"].info
    assert (info.start_time, info.end_time) == (1000 * (ROW.ended_at + 1), 1000 * (ROW.ended_at + 5))
