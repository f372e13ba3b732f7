"""MLflow models: saved, logged to a run, registered; each once, whatever is interrupted."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient

from gitdist.data.dataset import Dataset
from gitdist.errors import SpecError, StudyError
from gitdist.export.model import ProbabilityModel, TrainedModel
from gitdist.spec import TrialSpec
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE, StudyPaths
from gitdist.study.monitoring.mlflow.models import save_model
from gitdist.study.monitoring.mlflow.sync import StudyRecord, SyncCounts, sync_study
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from gitdist.trial.checkpoint import fresh_classifier
from tests.study.monitoring.mlflow.conftest import DESCRIPTION, TRIAL
from tests.trial.toys import small_digits

STATES = {BASELINE: ({}, Outcome("finished")), TRIAL: ({"fraction": 0.5}, Outcome("finished"))}
READ = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("gitdist", "pytorch_lightning"):  # MLflow imports Lightning if it is there
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
import mlflow, numpy, torch
uri, source, target = sys.argv[1:]
images = numpy.load(source)
model = mlflow.pytorch.load_model(uri)
parts = [model(torch.from_numpy(part)).numpy() for part in (images[:1], images[1:4], images[4:])]
served = mlflow.pyfunc.load_model(uri).predict(images)
names = mlflow.models.Model.load(uri).metadata["class_names"]
numpy.savez(target, probabilities=numpy.concatenate(parts), served=served, names=names)
"""


def untrained(dataset: Dataset) -> TrainedModel:
    spec = TrialSpec(epochs=1, fraction=0.0)
    return TrainedModel(
        module=ProbabilityModel(fresh_classifier(spec, dataset), dataset.mean, dataset.std),
        spec=spec,
        study="study",
        trial="7",
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        mean=dataset.mean,
        std=dataset.std,
    )


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_digits(tmp_path_factory.mktemp("digits"), kind="exponential", largest=20, factor=0.5)


@pytest.fixture(scope="module")
def saved(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a saved model."""
    directory = tmp_path_factory.mktemp("models") / "0007"
    save_model(untrained(digits), directory)
    return directory


@pytest.fixture
def record(paths, saved) -> StudyRecord:
    """A finished study whose best trial and baseline have a model."""
    for trial in STATES:
        shutil.copytree(saved, paths.model(trial))
    chosen = {"number": 7, "params": {"fraction": 0.5}, "val": {"val/ekld": 0.25}, "test": {}}
    paths.summary.write_text(json.dumps({"wall_s": 4.0, "trials": {"finished": 1}, "best": chosen, "baseline": None}))
    return StudyRecord(identity="one", description=DESCRIPTION, states=STATES, register="digits [best]")


def models_of(client: MlflowClient, study: str = "study") -> dict[str, str]:
    """Return the status of each run's model; a run must have one at most."""
    models = client.search_logged_models([client.get_experiment_by_name(study).experiment_id])
    runs = [client.get_run(model.source_run_id) for model in models]
    for run, model in zip(runs, models, strict=True):
        assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    keys = [run.data.tags.get("gitdist.trial", run.data.tags["gitdist.role"]) for run in runs]
    assert len(set(keys)) == len(keys)
    return {key: model.status.name for key, model in zip(keys, models, strict=True)}


def test_a_saved_model_loads_with_mlflow_and_torch_alone(saved, digits, tmp_path):
    assert [each.name for each in saved.parent.iterdir()] == ["0007"]
    images = digits.test.images[:20]
    np.save(tmp_path / "images.npy", images)
    arguments = [str(saved), str(tmp_path / "images.npy"), str(tmp_path / "answer.npz")]
    subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", READ, *arguments], check=True, cwd=tmp_path)
    answer = np.load(tmp_path / "answer.npz")
    expected = untrained(digits).probabilities(images)
    for name in ("probabilities", "served"):
        assert answer[name].dtype == np.float32 and np.abs(answer[name] - expected).max() < 1e-5
    assert answer["names"].tolist() == list(digits.class_names)


class _Untraceable(torch.nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :2] if images.sum() > 0 else images.flatten(1)[:, 2:4]


def test_a_network_that_cannot_be_traced_leaves_nothing(digits, tmp_path):
    model = untrained(digits)
    model.module.classifier = _Untraceable()
    with pytest.raises(SpecError, match="resnet20"):
        save_model(model, tmp_path / "0007")
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_logged_to_its_run_and_registered_once(paths, runs, record):
    uri = tracking_uri(paths, None)
    sync_study(paths, uri, record)
    assert models_of(runs.client) == {"7": "READY", "baseline": "READY"}
    (version,) = runs.client.search_model_versions("name = 'digits [best]'")
    assert version.run_id == runs.by_key()["7"].info.run_id and version.status == "READY"
    before = runs.contents()
    assert sync_study(paths, uri, record) == SyncCounts(runs_created=0, epochs_added=0, statuses_fixed=0)
    assert runs.contents() == before and models_of(runs.client) == {"7": "READY", "baseline": "READY"}
    assert len(runs.client.search_model_versions("name = 'digits [best]'")) == 1


def test_a_driver_logs_and_registers_what_sync_then_finds(paths, runs, record, open_tracker):
    tracker = open_tracker(register="digits [best]")
    for trial, (params, outcome) in STATES.items():
        tracker.trial_started(trial, params)
        tracker.trial_ended(trial, outcome)
        tracker.model_saved(trial)
    tracker.study_ended(json.loads(paths.summary.read_text()))
    tracker.close("FINISHED")
    before = runs.contents()
    assert models_of(runs.client) == {"7": "READY", "baseline": "READY"}
    assert len(runs.client.search_model_versions("name = 'digits [best]'")) == 1
    sync_study(paths, tracking_uri(paths, None), record)
    assert runs.contents() == before and len(models_of(runs.client)) == 2


@pytest.mark.parametrize(
    "call", ["log_outputs", "log_model_artifacts", "finalize_logged_model", "create_model_version"]
)
def test_what_an_interruption_left_is_completed_and_not_doubled(paths, runs, record, monkeypatch, call):
    def broken(*_, **__):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as trouble:
        trouble.setattr(MlflowClient, call, broken)
        with pytest.raises(StudyError, match="Input/output error"):
            sync_study(paths, tracking_uri(paths, None), record)
    assert set(runs.statuses().values()) == {"FINISHED"}  # whatever becomes of the models
    sync_study(paths, tracking_uri(paths, None), record)
    assert models_of(runs.client) == {"7": "READY", "baseline": "READY"}
    assert len(runs.client.search_model_versions("name = 'digits [best]'")) == 1


def test_a_model_that_was_deleted_is_logged_again(paths, runs, record):
    sync_study(paths, tracking_uri(paths, None), record)
    tags = {key: run.data.tags.get("hash.model") for key, run in runs.by_key().items()}
    runs.client.delete_logged_model(tags["7"])
    sync_study(paths, tracking_uri(paths, None), record)
    again = {key: run.data.tags.get("hash.model") for key, run in runs.by_key().items()}
    assert again["baseline"] == tags["baseline"] and again["7"] not in (None, tags["7"])


def test_files_of_a_model_that_were_lost_are_logged_again(paths, runs, record):
    sync_study(paths, tracking_uri(paths, None), record)
    number = runs.by_key()["7"].data.tags["hash.model"]
    (directory,) = paths.artifacts.rglob(f"{number}/artifacts")
    before = sorted(file.relative_to(directory) for file in directory.rglob("*"))
    shutil.rmtree(directory)
    sync_study(paths, tracking_uri(paths, None), record)
    assert sorted(file.relative_to(directory) for file in directory.rglob("*")) == before
    assert runs.by_key()["7"].data.tags["hash.model"] == number and len(models_of(runs.client)) == 2


def test_models_move_with_their_results_directory(paths, record, tmp_path):
    sync_study(paths, tracking_uri(paths, None), record)
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("study", "mlflow.db", "mlartifacts"):
        (tmp_path / name).rename(moved / name)
    paths = StudyPaths.at(moved, "study")
    sync_study(paths, tracking_uri(paths, None), record)
    client = MlflowClient(tracking_uri(paths, None))
    assert models_of(client) == {"7": "READY", "baseline": "READY"}
    (version,) = client.search_model_versions("name = 'digits [best]'")
    assert Path(version.source.removeprefix("file://")).is_relative_to(moved)
    assert mlflow.pytorch.load_model(version.source)(torch.zeros((3, 1, 8, 8), dtype=torch.uint8)).shape == (3, 10)
