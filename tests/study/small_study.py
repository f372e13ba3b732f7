"""A study of half a minute, run by the command line as a user runs it, and what must be true of one that has ended."""

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow.tracking import MlflowClient

from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.rows import read_rows
from gitdist.study.ledger.storage import close_storage, open_storage
from gitdist.study.monitoring.mlflow.database import ensure_database
from gitdist.trial.epoch_row import EpochRow
from tests.commands import call, environment, gitdist

SPEC: dict[str, Any] = {
    "name": "small",
    "data": {
        "source": "digits",
        "nuisance": "background",
        "profile": {"kind": "exponential", "largest": 60, "factor": 0.2},
        "validation_per_class": 10,
    },
    "generator": {
        "kind": "munit",
        "dim": 8,
        "num_res": 1,
        "discriminator_dim": 8,
        "discriminator_layers": 2,
        "steps": 30,
        "batch_size": 4,
        "checkpoint_every": 10,
    },
    "stream": {"block_size": 16},
    "trial": {"epochs": 3, "switch_epoch": 1, "batch_size": 32, "lr_warmup_epochs": 1, "lr_milestones": [2]},
    "search": {
        "total": 3,
        "algorithm": "random",
        "space": {"threshold": {"int": [20, 61]}, "fraction": {"float": [0.2, 0.8]}},
    },
    "evaluation": {
        "epoch_images_per_class": 2,
        "epoch_transformations": 2,
        "final_images_per_class": 2,
        "final_transformations": 3,
    },
    "resources": {"server": {"cpu": 0.5}, "trial": {"cpu": 0.75}, "training": {"cpu": 1}},
}
NO_MODELS = {"tracking": {"models": False}}  # saving them takes seconds
TIMES = {"train_s", "waiting_s", "evaluating_s", "ended_at", "trained_by", "generated"}  # and whose work it was


@dataclass(frozen=True)
class SmallStudy:
    """A study in a results directory, and the commands on it."""

    results: Path
    name: str = "small"
    overrides: tuple[str, ...] = ()
    ledger: str = "sqlite"

    @property
    def directory(self) -> Path:
        return self.results / self.name

    def command(self, *arguments: str) -> list[str]:
        self.results.mkdir(parents=True, exist_ok=True)
        if not (self.results / "mlflow.db").exists():  # making one takes a second of CPU
            shutil.copy(empty_database(), self.results / "mlflow.db")
        file = self.results / f"{self.name}.yaml"
        file.write_text(yaml.safe_dump({**SPEC, **NO_MODELS, "name": self.name, "ledger": self.ledger}))
        sets = [part for override in self.overrides for part in ("--set", override)]
        return gitdist("run", str(file), "--results", str(self.results), *sets, *arguments)

    def start(self, *arguments: str, cwd: Path | None = None, **env: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            cwd=cwd,
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return call(self.command(*arguments), **env)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """All rows by trial directory, without the times."""
        places = [self.directory / "baseline", *sorted((self.directory / "trials").iterdir())]
        return {place.name: lasting(read_rows(place / "rows.jsonl")) for place in places}

    def trials(self, study: str | None = None) -> list[optuna.trial.FrozenTrial]:
        """What any Optuna program reads in the ledger."""
        storage = open_storage(self.ledger, StudyPaths.at(self.results, self.name))
        try:
            return optuna.load_study(study_name=study or self.name, storage=storage).trials
        finally:
            close_storage(storage)

    def runs(self) -> list[Any]:
        """All MLflow runs of the study."""
        client = self.mlflow()
        experiment = client.get_experiment_by_name(self.name)
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def statuses(self) -> list[str]:
        return [run.info.status for run in self.runs()]

    def mlflow(self) -> MlflowClient:
        return MlflowClient(f"sqlite:///{self.results / 'mlflow.db'}")


def session_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that all processes of a test session have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@cache
def empty_database() -> Path:
    """An MLflow database without runs, as the first study in a results directory makes it."""
    place = Path(tempfile.mkdtemp(prefix="gitdist-mlflow-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    ensure_database(place / "mlflow.db", place / "mlartifacts")
    return place / "mlflow.db"


def stocked(results: Path, other: SmallStudy, *overrides: str) -> SmallStudy:
    """The same study as ``other`` at its beginning, with data, generator and eKLD images in its store already."""
    shutil.copytree(other.results / "store", results / "store", ignore=shutil.ignore_patterns("prefix", "blocks"))
    return SmallStudy(results, overrides=overrides)


def wait_for_rows(study: SmallStudy, trial: str = "trials/0000", epochs: int = 1) -> None:
    """Return once a trial of a study that runs has so many rows."""
    deadline = time.monotonic() + 300
    rows = study.directory / trial / "rows.jsonl"
    while len(read_rows(rows)) < epochs:
        assert time.monotonic() < deadline, f"{rows} has no {epochs} rows"
        time.sleep(0.02)


def lasting(rows: list[EpochRow]) -> list[dict[str, Any]]:
    """The part of the rows that must be the same in every run."""
    return [{name: value for name, value in row.to_json().items() if name not in TIMES} for row in rows]


def check_whole(study: SmallStudy, total: int, epochs: int = 3) -> None:
    """Assert that ledger, MLflow, trial directories, rows and lease agree on a study in which every trial finished."""
    numbers = list(range(total))
    trials = study.trials()
    assert [(trial.number, trial.state.name) for trial in trials] == [(number, "COMPLETE") for number in numbers]
    assert sorted(place.name for place in (study.directory / "trials").iterdir()) == [f"{n:04d}" for n in numbers]
    assert {name: [row["epoch"] for row in rows] for name, rows in study.rows().items()} == {
        name: list(range(1, epochs + 1)) for name in ("baseline", *(f"{number:04d}" for number in numbers))
    }
    check_mlflow(study, Counter({"study": 1, "generator": 1, "baseline": 1, "trial": total}), epochs)
    terms = [trial.state.name for trial in study.trials(f"{study.name}.owners")]
    assert "RUNNING" not in terms and terms[-1] == "COMPLETE"
    leftovers = [place.name for part in ("tmp", "work") for place in (study.results / "store" / part).iterdir()]
    assert [name for name in leftovers if not name.startswith("damaged-")] == []  # what was damaged is set aside


def check_mlflow(study: SmallStudy, roles: Counter, epochs: int) -> None:
    """Assert that MLflow has these runs, all ended, and of a trial what its rows say, each epoch once."""
    runs = study.runs()
    found = Counter(run.data.tags["gitdist.role"] for run in runs)
    assert found == roles, [
        (run.data.tags.get("gitdist.role"), run.data.tags.get("gitdist.trial"), run.info.status) for run in runs
    ]
    assert Counter(run.info.status for run in runs) == {"FINISHED": len(runs)}
    numbers = [int(run.data.tags["gitdist.trial"]) for run in runs if run.data.tags["gitdist.role"] == "trial"]
    assert sorted(numbers) == list(range(roles["trial"]))
    for tag in ("hash.spec", "hash.data", "hash.generator"):
        assert len({run.data.tags[tag] for run in runs}) == 1, tag
    client, rows = study.mlflow(), study.rows()
    for run in runs:
        if run.data.tags["gitdist.role"] not in ("trial", "baseline"):
            continue
        number = run.data.tags.get("gitdist.trial")
        own = rows["baseline" if number is None else f"{int(number):04d}"]
        assert len(own) == epochs
        for name in ("train/loss", "val/balanced_accuracy", "val/ekld"):
            history = client.get_metric_history(run.info.run_id, name)
            logged = sorted((metric.step, metric.value) for metric in history)
            assert logged == [(row["epoch"], row[name]) for row in own], (run.info.run_name, name)
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"rows.jsonl", "per_class.parquet", "per_class.png"} <= files
