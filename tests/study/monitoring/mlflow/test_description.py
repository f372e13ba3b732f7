"""What each run says of its study: parameters, data set, source, note."""

from dataclasses import replace

import pytest
from mlflow.tracking import MlflowClient

from gitdist.spec import StudySpec
from gitdist.study.compatibility import MAY_CHANGE
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE
from gitdist.study.monitoring.mlflow.description import find_source
from gitdist.study.monitoring.mlflow.sync import StudyRecord, SyncCounts, sync_study
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from tests.study.monitoring.mlflow.conftest import DESCRIPTION, TRIAL, flush

ROLES = ("study", "generator", "baseline", "trial")
STATES = {BASELINE: ({}, Outcome("finished")), TRIAL: ({"fraction": 0.5}, Outcome("finished"))}


def test_every_run_has_parameters_inputs_source_and_a_note(open_tracker, runs, monkeypatch):
    logged = []
    real = MlflowClient.log_inputs
    monkeypatch.setattr(MlflowClient, "log_inputs", lambda *fields: logged.append(fields[1]) or real(*fields))
    tracker = open_tracker()
    tracker.generator_started()
    tracker.generator_ended("munit-abc", [])
    for trial, (params, outcome) in STATES.items():
        tracker.trial_started(trial, params)
        tracker.trial_ended(trial, outcome)
    assert flush(tracker)
    found = runs.by_key()
    assert found.keys() == {"study", "generator", "baseline", "7"} and len(logged) == 4
    for run in found.values():
        assert run.data.params["data.source"] == "digits"
        assert run.data.tags["mlflow.source.name"] == "study.yaml"
        assert run.data.tags["mlflow.source.git.commit"] == "0123"
        assert run.info.run_id in run.data.tags["mlflow.note.content"]
        splits = {each.dataset.name: [tag.value for tag in each.tags] for each in run.inputs.dataset_inputs}
        assert splits == {f"digits/{split}": [split] for split in ("train", "validation", "test")}
        assert {each.dataset.digest for each in run.inputs.dataset_inputs} == {DESCRIPTION.fingerprint}
    assert (found["7"].data.params["fraction"], found["baseline"].data.params["fraction"]) == ("0.5", "0.0")
    assert found["7"].data.params["trial.epochs"] == found["study"].data.params["trial.epochs"]
    assert found["study"].info.run_id in found["7"].data.tags["mlflow.note.content"]
    assert "0.7500" in found["7"].data.tags["mlflow.note.content"]  # the validation accuracy of its last epoch


@pytest.mark.parametrize("role", ROLES)
def test_the_parameters_of_a_run_do_not_change_while_the_study_may(role):
    before = DESCRIPTION.params(role, {"fraction": 0.5})
    spec = DESCRIPTION.spec.model_dump(by_alias=True)
    spec["search"] |= {"total": 99, "patience": 5}
    spec |= {"resources": {"servers": 3}, "title": "Another"}
    assert replace(DESCRIPTION, spec=StudySpec.model_validate(spec)).params(role, {"fraction": 0.5}) == before
    assert not before.keys() & set(MAY_CHANGE)


def test_a_searched_value_replaces_the_fixed_one_and_comes_first():
    params = DESCRIPTION.params("trial", {"fraction": 0.5, "epochs": 7})
    assert list(params)[:2] == ["fraction", "epochs"]
    assert "trial.fraction" not in params and "trial.epochs" not in params
    assert DESCRIPTION.params("study", {})["search.space.fraction"] == '{"float": [0.1, 0.9]}'


def test_what_mlflow_would_refuse_is_written_in_parts_or_cut(open_tracker, runs):
    spec = DESCRIPTION.spec.model_copy(
        update={"data": DESCRIPTION.spec.data.model_copy(update={"exclude": tuple(map(str, range(9000)))})}
    )
    tracker = open_tracker(description=replace(DESCRIPTION, spec=spec))
    tracker.trial_started(TRIAL, {f"searched_{index}": index for index in range(150)})
    tracker.trial_ended(TRIAL, Outcome("failed", reason="loss " * 9000))
    assert flush(tracker)
    run = runs.by_key()["7"]
    assert run.info.status == "FAILED" and not open_tracker.warnings
    assert run.data.params["searched_149"] == "149" and run.data.params["data.exclude"].startswith("0, 1, 2")


def test_a_trial_that_cannot_be_made_has_parameters():
    assert DESCRIPTION.params("trial", {"switch_epoch": 10**6})["switch_epoch"] == 10**6


def test_the_source_is_the_study_file_and_the_commit_of_its_checkout(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("name: study\n")
    assert find_source(file)["name"] == str(file)
    assert find_source(None)["name"].startswith("gitdist ")


def test_runs_of_an_earlier_version_are_found_and_completed(paths, runs):
    """Their tags with hashes had other names, and they had no parameters but the searched ones."""
    record = StudyRecord(identity="one", description=DESCRIPTION, states=STATES)
    sync_study(paths, tracking_uri(paths, None), record)
    for run in runs.all():
        for name in ("identity", "spec", "data", "files"):
            if f"hash.{name}" in run.data.tags:
                runs.client.set_tag(run.info.run_id, f"gitdist.{name}", run.data.tags[f"hash.{name}"])
                runs.client.delete_tag(run.info.run_id, f"hash.{name}")
    before = runs.by_key()
    assert sync_study(paths, tracking_uri(paths, None), record) == SyncCounts(
        runs_created=0, epochs_added=0, statuses_fixed=0
    )
    after = runs.by_key()
    assert {key: run.info.run_id for key, run in after.items()} == {key: run.info.run_id for key, run in before.items()}
    assert {run.data.tags["hash.identity"] for run in after.values()} == {"one"}
    assert all(run.data.tags["gitdist.identity"] == "one" for run in after.values())
