"""Parts of MLflow's tests: an empty store to copy, a study with rows, and its runs as MLflow has them."""

import json
import shutil
from dataclasses import replace

import pytest

from gitdist.spec import StudySpec
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import open_rows
from gitdist.study.monitoring.mlflow.description import StudyDescription
from gitdist.study.monitoring.mlflow.tracker import Tracker
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from gitdist.trial.epoch_row import EpochRow
from tests.epoch_rows import epoch_row

ROW = epoch_row(
    metrics={"val/balanced_accuracy": 0.75, "val/ekld": 0.25},
    per_class={"accuracy_per_class": [0.5, 1.0], "ekld_per_class": [0.4, 0.1]},
    ended_at=1_700_000_000.0,
)
TRIAL = TrialId("trial", 7)
DESCRIPTION = StudyDescription(
    spec=StudySpec(name="study", search={"space": {"fraction": {"float": [0.1, 0.9]}}}),
    fingerprint="abc",
    source={"name": "study.yaml", "commit": "0123"},
)


def rows(num_epochs: int) -> list[EpochRow]:
    return [
        replace(ROW, epoch=n, metrics={**ROW.metrics, "val/ekld": 1 / n}, ended_at=ROW.ended_at + n)
        for n in range(1, num_epochs + 1)
    ]


def write_rows(paths: StudyPaths, trial: TrialId, num_epochs: int) -> None:
    """Leave a trial's directory as a worker does after so many epochs."""
    directory = paths.trial(trial)
    directory.mkdir(parents=True, exist_ok=True)
    open_rows(directory / "rows.jsonl", rows(num_epochs)).close()
    described = {"title": "study", "classes": {"names": ["cat", "dog"], "sizes": [3, 30]}}
    (directory / "trial.json").write_text(json.dumps(described))


def flush(tracker: Tracker, timeout_s: float = 20.0) -> bool:
    """Wait until MLflow has everything; return whether it has."""
    return not tracker._outbox.flush(timeout_s)


class Runs:
    """A study's runs as a store has them, asked by a client of its own."""

    def __init__(self, uri: str, study: str = "study") -> None:
        from mlflow.tracking import MlflowClient

        self.client, self._study = MlflowClient(tracking_uri=uri), study

    def all(self) -> list:
        experiment = self.client.get_experiment_by_name(self._study)
        return [] if experiment is None else list(self.client.search_runs([experiment.experiment_id]))

    def by_key(self) -> dict:
        """Return the runs by role, or by number for trials; a key must be there once."""
        keys = [run.data.tags.get("gitdist.trial", run.data.tags["gitdist.role"]) for run in self.all()]
        assert len(keys) == len(set(keys)), keys
        return dict(zip(keys, self.all(), strict=True))

    def statuses(self) -> dict[str, str]:
        return {key: run.info.status for key, run in self.by_key().items()}

    def steps(self, key: str, metric: str = "val/ekld") -> list[int]:
        """Return a metric's steps, in order, each as often as it is there."""
        run = self.by_key()[key]
        return sorted(point.step for point in self.client.get_metric_history(run.info.run_id, metric))

    def files(self, key: str) -> set[str]:
        return {file.path for file in self.client.list_artifacts(self.by_key()[key].info.run_id)}

    def contents(self) -> dict:
        """Return all that a second sync must leave as it is."""
        return {
            key: (
                run.info.run_id,
                run.info.status,
                run.data.tags,
                run.data.params,
                run.data.metrics,
                {name: self.steps(key, name) for name in run.data.metrics},
                self.files(key),
            )
            for key, run in self.by_key().items()
        }


@pytest.fixture
def paths(tmp_path, empty_store, monkeypatch) -> StudyPaths:
    """Return a study with one epoch of a trial and of the baseline, in a results directory with an empty store."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    paths = StudyPaths.at(tmp_path, "study")
    paths.create()
    shutil.copy(empty_store, paths.tracking_db)
    for trial in (TRIAL, BASELINE):
        write_rows(paths, trial, 1)
    return paths


@pytest.fixture
def runs(paths) -> Runs:
    return Runs(tracking_uri(paths, None))


@pytest.fixture
def open_tracker(paths):
    """Return a function that opens the study's Tracker; their warnings are in its ``warnings``."""
    opened: list[Tracker] = []
    warnings: list[str] = []

    def open_(identity: str = "one", uri: str | None = None, description=DESCRIPTION, **more: str) -> Tracker:
        opened.append(Tracker(paths, tracking_uri(paths, uri), identity, description, warnings.append, **more))
        return opened[-1]

    open_.warnings = warnings
    yield open_
    for tracker in opened:
        tracker.close(timeout_s=0.0)
