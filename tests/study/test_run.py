"""One small real study, run by the command line as a user runs it: Ray, Optuna and MLflow are the real ones."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from mlflow.tracking import MlflowClient
from PIL import Image

from gitdist.study.rows import read_rows

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

STUDY = {
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
TIMES = {"train_s", "waiting_s", "evaluating_s"}
VAL = {f"val/{name}" for name in ("balanced_accuracy", "ekld", "many_accuracy", "medium_accuracy", "few_accuracy")}


def command(directory: Path, *arguments: str) -> list[str]:
    path = directory / "small.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return [sys.executable, "-m", "gitdist", "run", str(path), "--results", str(directory / "results"), *arguments]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(directory, *arguments), env=environment(), capture_output=True, text=True, timeout=400, check=False
    )


def lasting(rows: list[dict]) -> list[dict]:
    """The part of the rows that must be the same in every run."""
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def all_rows(results: Path) -> dict[str, list[dict]]:
    study = results / "small"
    places = [study / "baseline", *sorted((study / "trials").iterdir())]
    return {place.name: lasting(read_rows(place / "rows.jsonl")) for place in places}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("finished")
    done = run(directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@pytest.fixture(scope="module")
def results(finished) -> Path:
    return finished / "results"


@pytest.fixture(scope="module")
def runs(results) -> dict[str, list]:
    client = MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    by_role: dict[str, list] = {}
    for found in client.search_runs([experiment.experiment_id]):
        by_role.setdefault(found.data.tags["gitdist.role"], []).append(found)
    return by_role


def test_the_ledger_holds_the_asked_number_of_finished_trials(results):
    storage = optuna.storages.RDBStorage(f"sqlite:///{results / 'small' / 'ledger.db'}")
    trials = optuna.load_study(study_name="small", storage=storage).trials
    storage.engine.dispose()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert all(set(trial.params) == {"threshold", "fraction"} for trial in trials)


def test_every_trial_has_a_row_an_epoch_with_the_promised_metrics(results):
    rows = all_rows(results)
    assert list(rows) == ["baseline", "0000", "0001", "0002"]
    for trial_rows in rows.values():
        assert [row["epoch"] for row in trial_rows] == [1, 2, 3]
        assert all(VAL <= set(row) for row in trial_rows)


def test_before_the_switch_all_trials_are_one_and_only_augmented_trials_draw(results):
    rows = all_rows(results)
    assert all(trial_rows[0] == rows["baseline"][0] for trial_rows in rows.values())
    assert [row["draws"] for row in rows["baseline"]] == [0, 0, 0]
    for name in ("0000", "0001", "0002"):
        draws = [row["draws"] for row in rows[name]]
        assert draws[0] == 0 and min(draws[1:]) > 0


def test_the_summary_has_best_and_baseline_on_validation_and_test(results):
    summary = json.loads((results / "small" / "summary.json").read_text())
    ledger = {name: rows[-1]["val/balanced_accuracy"] for name, rows in all_rows(results).items() if name != "baseline"}
    best = summary["best"]
    assert best["val"]["val/balanced_accuracy"] == max(ledger.values()) == ledger[f"{best['number']:04d}"]
    assert summary["baseline"]["number"] is None and summary["baseline"]["params"]["fraction"] == 0
    for chosen in (best, summary["baseline"]):
        assert set(chosen["val"]) == VAL
        assert set(chosen["test"]) == {name.replace("val/", "test/") for name in VAL}
    for name in ("wall_s", "training_s", "generating_s", "evaluating_s"):
        assert summary[name] > 0
    assert summary["waiting_s"] >= 0


def test_trials_share_the_blocks_of_one_stream(results):
    summary = json.loads((results / "small" / "summary.json").read_text())
    drawn = [sum(row["draws"] for row in rows) for rows in all_rows(results).values()]
    lookahead_and_rest = 10 * 16 * (2 + 1)  # classes x block size x (blocks ahead + the one begun)
    assert summary["generated_images"] % 16 == 0
    assert (
        summary["generated_images"]
        <= sum(sorted(drawn)[-1:]) + 2 * lookahead_and_rest
        < sum(drawn) + 2 * lookahead_and_rest
    )


def test_mlflow_has_one_run_a_trial_under_one_parent(runs):
    (parent,) = runs["study"]
    assert {run.data.tags["gitdist.trial"] for run in runs["trial"]} == {"0", "1", "2"}
    children = [*runs["trial"], *runs["baseline"], *runs["generator"]]
    assert len(children) == 5
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.data.tags["gitdist.study"] == "small"
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert "gitdist.trial" not in runs["baseline"][0].data.tags


def test_mlflow_metrics_are_those_of_the_rows(runs, results):
    rows = all_rows(results)
    client = MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    for run_ in runs["trial"]:
        expected = rows[f"{int(run_.data.tags['gitdist.trial']):04d}"]
        for name in VAL:
            history = sorted(client.get_metric_history(run_.info.run_id, name), key=lambda metric: metric.step)
            assert [(metric.step, metric.value) for metric in history] == [
                (row["epoch"], row[name]) for row in expected
            ]
    summary = json.loads((results / "small" / "summary.json").read_text())
    (best,) = [r for r in runs["trial"] if int(r.data.tags["gitdist.trial"]) == summary["best"]["number"]]
    assert {name: best.data.metrics[name] for name in summary["best"]["test"]} == summary["best"]["test"]


def test_mlflow_has_the_files(runs, results):
    client = MlflowClient(f"sqlite:///{results / 'mlflow.db'}")

    def files(run_) -> set[str]:
        return {entry.path for entry in client.list_artifacts(run_.info.run_id)}

    assert {"rows.jsonl", "per_class.parquet", "per_class.png"} <= files(runs["trial"][0])
    assert {"study.yaml", "summary.json"} <= files(runs["study"][0])
    assert any(name.endswith(".png") for name in files(runs["generator"][0]))


def test_the_parent_run_says_what_was_found(runs, results):
    summary = json.loads((results / "small" / "summary.json").read_text())
    tags = runs["study"][0].data.tags
    assert f"trial {summary['best']['number']}" in tags["mlflow.note.content"]
    assert "test/balanced_accuracy" in tags["mlflow.note.content"]
    generator = next((results / "store" / "generator").iterdir()).name
    assert {run_.data.tags["gitdist.generator"] for role in runs for run_ in runs[role]} == {generator}


def test_status_shows_the_finished_study(results):
    done = subprocess.run(
        [sys.executable, "-m", "gitdist", "status", "small", "--results", str(results)],
        env={**environment(), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "3 of 3 trials: 3 finished" in done.stdout
    assert "best so far: trial" in done.stdout
    assert done.stdout.count("3/3") == 4


def test_preview_draws_the_trained_generator(finished, results):
    picture = finished / "grid.png"
    preview = ["generator", "preview", str(finished / "small.yaml"), "--results", str(results), "--out", str(picture)]
    subprocess.run([sys.executable, "-m", "gitdist", *preview], env=environment(), timeout=120, check=True)
    with Image.open(picture) as image:
        assert image.height > 10 * 28 and image.width > 9 * 28  # ten classes; the input and eight draws


def test_nothing_half_written_is_left_in_the_store(results):
    assert list((results / "store" / "tmp").iterdir()) == []
    assert list((results / "store" / "work").iterdir()) == []


def test_running_a_finished_study_again_does_nothing(finished, results):
    before = {path: path.stat().st_mtime_ns for path in (results / "small" / "trials").rglob("*")}
    done = run(finished)
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (results / "small" / "trials").rglob("*")} == before


def test_a_changed_study_is_refused_with_field_and_both_values(finished):
    done = run(finished, "--set", "trial.epochs=4")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in ("trial.epochs", "3", "4"))


@pytest.mark.parametrize(("stop", "exit_code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_study_whose_driver_is_stopped_ends_with_the_same_rows(tmp_path, results, stop, exit_code):
    driver = subprocess.Popen(command(tmp_path), env=environment(), stdout=subprocess.PIPE, text=True)
    rows = tmp_path / "results" / "small" / "trials" / "0000" / "rows.jsonl"
    deadline = time.monotonic() + 300
    while not read_rows(rows) and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert driver.poll() is None, "the study ended before it could be stopped"
    driver.send_signal(stop)
    shown, _ = driver.communicate(timeout=120)
    assert driver.returncode == exit_code
    assert not (tmp_path / "results" / "small" / "summary.json").exists()
    if stop == signal.SIGINT:
        assert "the same command goes on" in shown
        assert "RUNNING" not in statuses(tmp_path / "results")
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all_rows(tmp_path / "results") == all_rows(results)
    assert statuses(tmp_path / "results") == ["FINISHED"] * 6


def statuses(results: Path) -> list[str]:
    client = MlflowClient(f"sqlite:///{results / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small")
    return [found.info.status for found in client.search_runs([experiment.experiment_id])]


def test_without_a_known_nuisance_ekld_is_under_the_generator(tmp_path):
    overrides = ["name=under", "data.nuisance=none", "generator={kind: identity}", "search.total=1"]
    done = run(tmp_path, *(part for override in overrides for part in ("--set", override)))
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "results" / "under" / "summary.json").read_text())
    assert summary["ekld_under"] == "generator"
    for chosen in (summary["best"], summary["baseline"]):
        assert chosen["val"]["val/ekld"] == chosen["test"]["test/ekld"] == 0  # the identity changes nothing
    assert "under the learned generator" in done.stdout


def test_a_study_in_which_every_trial_fails_says_why(tmp_path):
    overrides = ["trial.lr=1.0e+30", "generator={kind: identity}", "search.total=1", "trial.lr_warmup_epochs=0"]
    done = run(tmp_path, *(part for override in overrides for part in ("--set", override)))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and "finished; the first failed with: " in done.stderr
    assert "epoch 1" in done.stderr
    assert sorted(statuses(tmp_path / "results")) == ["FAILED", "FAILED", "FAILED", "FINISHED"]


def test_a_running_cluster_is_joined_and_left_running(tmp_path, results):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        done = run(tmp_path, "--address", cluster.address)
        assert done.returncode == 0, done.stdout + done.stderr
        assert all_rows(tmp_path / "results") == all_rows(results)
        assert cluster.head_node.remaining_processes_alive()
    finally:
        cluster.shutdown()
