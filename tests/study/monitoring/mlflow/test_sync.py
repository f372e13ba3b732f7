import json

import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from gitdist.errors import IncompleteFileError, StudyError
from gitdist.generator.base import TrainingStep
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.files.times import Times
from gitdist.study.monitoring.mlflow.content import trial_run
from gitdist.study.monitoring.mlflow.store import MlflowOutageError
from gitdist.study.monitoring.mlflow.sync import GeneratorRecord, StudyRecord, SyncCounts, sync_study
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from tests.study.monitoring.mlflow.conftest import DESCRIPTION, TRIAL, write_rows

NOTHING = SyncCounts(runs_created=0, epochs_added=0, statuses_fixed=0)
STEPS = [TrainingStep(step=n, total=30, losses={"image": 1 / n}, elapsed_s=0.0) for n in (10, 20, 30)]


@pytest.fixture
def record(paths) -> StudyRecord:
    """Return a finished study of a trial, a pruned one and the baseline, with all its files."""
    pruned = TrialId("trial", 8)
    for trial, num_epochs in ((TRIAL, 4), (pruned, 2), (BASELINE, 4)):
        write_rows(paths, trial, num_epochs)
    (paths.trial(TRIAL) / "test.json").write_text(json.dumps({"metrics": {"test/ekld": 0.5}}))
    Image.new("L", (1, 1)).save(paths.samples)
    paths.spec.write_text("name: study\n")
    chosen = {"number": 7, "params": {"fraction": 0.5}, "val": {"val/ekld": 0.25}, "test": {"test/ekld": 0.5}}
    times = ({"of": "study", "started_at": 1_700_000_000.0}, {"of": "study", "ended_at": 1_700_000_004.0})
    paths.times.write_text("".join(json.dumps(line) + "\n" for line in times))
    summary = {"objectives": ["val/ekld"], "wall_s": 4.0, "trials": {"finished": 1}, "best": chosen, "baseline": None}
    paths.summary.write_text(json.dumps(summary))
    states = {
        BASELINE: ({}, Outcome("finished")),
        TRIAL: ({"fraction": 0.5}, Outcome("finished")),
        pruned: ({"fraction": 0.9}, Outcome("pruned")),
    }
    generator = GeneratorRecord(name="munit-abc", steps=STEPS)
    return StudyRecord(identity="one", description=DESCRIPTION, states=states, generator=generator)


def test_an_empty_store_gets_everything_and_a_second_time_changes_nothing(paths, runs, record):
    uri = tracking_uri(paths, None)
    assert sync_study(paths, uri, record) == SyncCounts(runs_created=5, epochs_added=10, statuses_fixed=0)
    assert set(runs.statuses().values()) == {"FINISHED"}
    assert [runs.steps(key) for key in ("7", "8", "baseline")] == [[1, 2, 3, 4], [1, 2], [1, 2, 3, 4]]
    assert runs.steps("generator", "image") == [10, 20, 30]
    assert runs.by_key()["7"].data.metrics["test/ekld"] == 0.5
    assert runs.by_key()["study"].data.metrics["best/test/ekld"] == 0.5
    assert runs.by_key()["8"].data.tags["gitdist.pruned"] == "2"
    info = runs.by_key()["study"].info
    assert info.end_time - info.start_time == 4000
    assert runs.files("study") == {"study.yaml", "summary.json", "results.csv", "costs.csv"} and runs.files(
        "generator"
    ) == {"samples.png"}
    before = runs.contents()
    assert sync_study(paths, uri, record) == NOTHING
    assert runs.contents() == before


def test_a_store_that_a_driver_kept_true_lacks_nothing(paths, runs, record, open_tracker):
    tracker = open_tracker()
    tracker.generator_started()
    tracker.generator_stepped(STEPS)
    tracker.generator_ended(record.generator.name, [])
    for trial, (params, outcome) in record.states.items():
        tracker.trial_started(trial, params)
        tracker.trial_ended(trial, outcome)
    tracker.test_evaluated(TRIAL)
    tracker.study_ended(json.loads(paths.summary.read_text()))
    tracker.close("FINISHED")
    before = runs.contents()
    assert sync_study(paths, tracking_uri(paths, None), record) == NOTHING
    assert runs.contents() == before


def test_what_is_missing_or_untrue_is_corrected(paths, runs, record):
    uri = tracking_uri(paths, None)
    sync_study(paths, uri, record)
    before = runs.contents()
    found = runs.by_key()
    runs.client.delete_run(found["8"].info.run_id)
    runs.client.update_run(found["7"].info.run_id, status="RUNNING")
    (place,) = paths.artifacts.rglob(f"{found['baseline'].info.run_id}/artifacts/rows.jsonl")
    place.write_text("torn")
    (stale,) = paths.artifacts.rglob(f"{found['7'].info.run_id}/artifacts/rows.jsonl")
    paths.rows(TRIAL).write_text(paths.rows(TRIAL).read_text().replace("0.75", "0.76"))
    for extra, stray in (({"gitdist.role": "trial", "gitdist.trial": "99"}, True), ({"gitdist.role": "trial"}, False)):
        tags = {"gitdist.study": "study", "gitdist.identity": "one" if stray else "another", **extra}
        runs.client.create_run(found["7"].info.experiment_id, tags=tags)
    assert sync_study(paths, uri, record) == SyncCounts(runs_created=1, epochs_added=2, statuses_fixed=2)
    assert place.read_bytes() == paths.rows(BASELINE).read_bytes()
    assert stale.read_bytes() == paths.rows(TRIAL).read_bytes() and b"0.76" in stale.read_bytes()
    for contents in (before, after := runs.contents()):
        del contents["7"][2]["hash.files"]  # the new content's
        for key in ("7", "8"):  # with the new content's metrics, and with a link to the new run
            del contents[key][2]["mlflow.note.content"]
    assert after["99"][1] == "KILLED" and after["trial"][1] == "RUNNING"  # another study's is left alone
    assert after["8"][1:] == before["8"][1:]
    assert {key: after[key] for key in before if key != "8"} == {key: before[key] for key in before if key != "8"}


def test_files_that_cannot_be_written_keep_no_run_from_being_true(paths, runs, record, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as trouble:
        trouble.setattr(MlflowClient, "log_artifacts", full)
        with pytest.raises(StudyError, match="No space left on device"):
            sync_study(paths, tracking_uri(paths, None), record)
    assert len(runs.statuses()) == 5 and set(runs.statuses().values()) == {"FINISHED"}
    assert [runs.steps(key) for key in ("7", "8", "baseline")] == [[1, 2, 3, 4], [1, 2], [1, 2, 3, 4]]
    assert sync_study(paths, tracking_uri(paths, None), record) == NOTHING
    assert runs.files("7") == {"rows.jsonl", "test.json", "per_class.parquet", "per_class.png"}


@pytest.mark.parametrize(
    ("name", "line", "lost"),
    [
        ("rows", 3, '"epoch":3,'),
        ("rows", 1, '"evaluating_s":0.0,'),
        ("watch", 2, '"at": 2.0, '),
        ("test", None, '"metrics"'),
        ("summary", None, '"val"'),
    ],
)
def test_a_field_that_a_file_lacks_is_reported_as_that_and_not_as_a_failure_of_mlflow(
    paths, runs, record, name, line, lost
):
    paths.monitor_log.write_text("".join(f'{{"step": {n}, "at": {n}.0, "system/cpu": 1.0}}\n' for n in (1, 2)))
    file = {"rows": paths.rows(TRIAL), "watch": paths.monitor_log, "test": paths.test(TRIAL), "summary": paths.summary}[
        name
    ]
    whole = file.read_text()
    lines = whole.splitlines(keepends=True)
    number = (line or 1) - 1
    assert lost in lines[number]
    lines[number] = lines[number].replace(lost, '"lost"' if line is None else "")
    file.write_text("".join(lines))
    uri = tracking_uri(paths, None)
    with pytest.raises(IncompleteFileError) as caught:
        sync_study(paths, uri, record)
    assert (caught.value.path, caught.value.line) == (file, line)
    assert caught.value.field.endswith(lost.split('"')[1])
    assert str(file) in str(caught.value) and "MLflow" not in str(caught.value)
    lacking = "study" if name in ("watch", "summary") else "7"
    assert {key for key, status in runs.statuses().items() if status != "FINISHED"} <= {lacking}
    assert {"8", "baseline", "generator"} <= runs.statuses().keys()
    with pytest.raises(MlflowOutageError):  # an outage is reported as that, whatever the files are
        sync_study(paths, "http://127.0.0.1:1", record)
    file.write_text(whole)
    sync_study(paths, uri, record)
    assert set(runs.statuses().values()) == {"FINISHED"} and runs.steps("7") == [1, 2, 3, 4]


def test_a_study_that_has_not_ended_is_killed_and_so_are_its_open_trials(paths, runs, record):
    states = {**record.states, TrialId("trial", 9): ({}, None)}
    open_ = StudyRecord(identity="one", description=DESCRIPTION, states=states)
    assert sync_study(paths, tracking_uri(paths, None), open_).runs_created == 5
    statuses = runs.statuses()
    assert statuses["study"] == statuses["9"] == "KILLED" and statuses["7"] == "FINISHED"
    assert runs.steps("9") == []


def test_a_study_without_any_trial(paths, runs):
    paths.rows(TRIAL).unlink()
    assert (
        sync_study(
            paths, tracking_uri(paths, None), StudyRecord(identity="one", description=DESCRIPTION, states={})
        ).runs_created
        == 1
    )
    assert runs.statuses() == {"study": "KILLED"}


def test_the_parents_status_is_what_a_driver_would_say_at_its_end(paths, runs, record):
    paths.summary.write_text('{"torn')
    failed = {trial: ({}, Outcome("failed" if trial == TRIAL else "finished")) for trial in (TRIAL, BASELINE)}
    for states, num_open, status in (
        (record.states, 0, "KILLED"),  # its summary is to be made anew
        (failed, 1, "KILLED"),
        (failed, 0, "FAILED"),
    ):
        sync_study(
            paths,
            tracking_uri(paths, None),
            StudyRecord(identity="one", description=DESCRIPTION, states=states, num_open=num_open),
        )
        assert runs.statuses()["study"] == status


@pytest.mark.parametrize("damaged", [b"", b"\xff", b"[1]"])
def test_damaged_files_of_a_trial_keep_no_run_from_being_written(paths, damaged):
    for name in ("test.json", "trial.json"):
        (paths.trial(TRIAL) / name).write_bytes(damaged)
    desired = trial_run(paths, TRIAL, {}, Outcome("finished"), Times(paths))
    assert desired.final() is None
    assert desired.files() == {"rows.jsonl": paths.rows(TRIAL).read_bytes(), "test.json": damaged}
