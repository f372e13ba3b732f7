"""One small real study, run by the command line as a user runs it: Ray, Optuna and MLflow are the real ones."""

import json

import pytest
from PIL import Image

from gitdist.spec.objective import VALIDATION_METRICS
from tests.commands import call, gitdist
from tests.study.small_study import SmallStudy

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

VAL = set(VALIDATION_METRICS)


@pytest.fixture(scope="module")
def summary(undisturbed) -> dict:
    return json.loads((undisturbed.directory / "summary.json").read_text())


@pytest.fixture(scope="module")
def runs(undisturbed) -> dict[str, list]:
    by_role: dict[str, list] = {}
    for found in undisturbed.runs():
        by_role.setdefault(found.data.tags["gitdist.role"], []).append(found)
    return by_role


def test_the_ledger_holds_the_asked_number_of_finished_trials(undisturbed):
    trials = undisturbed.trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3
    assert all(set(trial.params) == {"threshold", "fraction"} for trial in trials)


def test_every_trial_has_a_row_an_epoch_with_the_promised_metrics(undisturbed):
    rows = undisturbed.rows()
    assert list(rows) == ["baseline", "0000", "0001", "0002"]
    for trial_rows in rows.values():
        assert [row["epoch"] for row in trial_rows] == [1, 2, 3]
        assert all(VAL <= set(row) for row in trial_rows)


def test_before_the_switch_all_trials_are_one_and_only_augmented_trials_draw(undisturbed):
    rows = undisturbed.rows()
    assert all(trial_rows[0] == rows["baseline"][0] for trial_rows in rows.values())
    assert [row["draws"] for row in rows["baseline"]] == [0, 0, 0]
    for name in ("0000", "0001", "0002"):
        draws = [row["draws"] for row in rows[name]]
        assert draws[0] == 0 and min(draws[1:]) > 0


def test_the_summary_has_best_and_baseline_on_validation_and_test(undisturbed, summary):
    rows = undisturbed.rows()
    ledger = {name: trial_rows[-1]["val/balanced_accuracy"] for name, trial_rows in rows.items() if name != "baseline"}
    best = summary["best"]
    assert best["val"]["val/balanced_accuracy"] == max(ledger.values()) == ledger[f"{best['number']:04d}"]
    assert summary["baseline"]["number"] is None and summary["baseline"]["params"]["fraction"] == 0
    for chosen in (best, summary["baseline"]):
        assert set(chosen["val"]) == VAL
        assert set(chosen["test"]) == {name.replace("val/", "test/") for name in VAL}
    for name in ("wall_s", "training_s", "generating_s", "evaluating_s"):
        assert summary[name] > 0
    assert summary["waiting_s"] >= 0


def test_trials_share_the_blocks_of_one_stream(undisturbed, summary):
    drawn = [sum(row["draws"] for row in rows) for rows in undisturbed.rows().values()]
    lookahead_and_rest = 10 * 16 * (2 + 1)  # classes x block size x (blocks ahead + the one begun)
    assert summary["generated_images"] % 16 == 0
    assert 0 < summary["generated_images"] <= max(drawn) + lookahead_and_rest


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


def test_mlflow_metrics_are_those_of_the_rows(undisturbed, runs, summary):
    rows, client = undisturbed.rows(), undisturbed.mlflow()
    for run_ in runs["trial"]:
        expected = rows[f"{int(run_.data.tags['gitdist.trial']):04d}"]
        for name in VAL:
            history = sorted(client.get_metric_history(run_.info.run_id, name), key=lambda metric: metric.step)
            assert [(metric.step, metric.value) for metric in history] == [
                (row["epoch"], row[name]) for row in expected
            ]
    (best,) = [r for r in runs["trial"] if int(r.data.tags["gitdist.trial"]) == summary["best"]["number"]]
    assert {name: best.data.metrics[name] for name in summary["best"]["test"]} == summary["best"]["test"]


def test_mlflow_has_the_files(undisturbed, runs):
    client = undisturbed.mlflow()

    def files(run_) -> set[str]:
        return {entry.path for entry in client.list_artifacts(run_.info.run_id)}

    assert {"rows.jsonl", "per_class.parquet", "per_class.png"} <= files(runs["trial"][0])
    assert {"study.yaml", "summary.json"} <= files(runs["study"][0])
    assert any(name.endswith(".png") for name in files(runs["generator"][0]))


def test_the_parent_run_says_what_was_found(undisturbed, runs, summary):
    tags = runs["study"][0].data.tags
    assert f"trial {summary['best']['number']}" in tags["mlflow.note.content"]
    assert "balanced_accuracy, test: best" in tags["mlflow.note.content"]
    generator = next((undisturbed.results / "store" / "generator").iterdir()).name
    assert {run_.data.tags["hash.generator"] for role in runs for run_ in runs[role]} == {generator}


def test_the_gap_to_the_baseline_has_standard_errors_everywhere(undisturbed, runs, summary):
    """In the summary, the parent run, ``status`` and what ``run`` prints at the end, in a terminal of 80 columns."""
    on_validation, on_test = summary["gaps"]
    parent = runs["study"][0].data.metrics
    for gap, prefix in ((on_validation, "val"), (on_test, "test")):
        name = f"{prefix}/balanced_accuracy"
        for role in ("best", "baseline"):
            found = summary[role][prefix]
            assert gap[role] == {"value": found[name], "standard_error": found[f"{name}_se"]}
            assert 0 < found[f"{name}_se"] < 0.5
        assert parent[f"gap/{name}"] == gap["difference"]["value"]
        assert parent[f"gap/{name}_se"] == gap["difference"]["standard_error"] > 0
    shown = "gap {value:+.4f} ± {standard_error:.4f}".format(**on_validation["difference"])
    assert shown in runs["study"][0].data.tags["mlflow.note.content"]
    status = call(gitdist("status", "small", "--results", str(undisturbed.results)), COLUMNS="160")
    assert shown in status.stdout
    again = undisturbed.run(COLUMNS="80")
    assert shown.removeprefix("gap ") in again.stdout
    *tables, export, ui = again.stdout[again.stdout.index("┏") :].splitlines()  # commands are never broken into lines
    assert max(map(len, tables)) <= 80 and all(str(undisturbed.results) in command for command in (export, ui))


def test_status_shows_the_finished_study(undisturbed):
    done = call(gitdist("status", "small", "--results", str(undisturbed.results)), COLUMNS="160")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 trials: 3 finished" in done.stdout
    assert "best so far: trial" in done.stdout
    assert done.stdout.count("3/3") == 4


def test_preview_draws_the_trained_generator(undisturbed, tmp_path):
    picture, file = tmp_path / "grid.png", undisturbed.results / "small.yaml"
    done = call(
        gitdist("generator", "preview", str(file), "--results", str(undisturbed.results), "--out", str(picture))
    )
    assert done.returncode == 0, done.stderr
    with Image.open(picture) as image:
        assert image.height > 10 * 28 and image.width > 9 * 28  # ten classes; the input and eight draws


def test_running_a_finished_study_again_does_nothing(undisturbed):
    def kept() -> tuple:
        places = [undisturbed.directory / name for name in ("trials", "baseline", "drivers")]
        files = [undisturbed.directory / "summary.json", *(path for place in places for path in place.rglob("*"))]
        written = {path: path.stat().st_mtime_ns for path in files}
        runs = {run.info.run_id: (run.info.status, run.data.metrics, run.data.tags) for run in undisturbed.runs()}
        return written, undisturbed.trials(), runs

    before = kept()
    done = undisturbed.run()
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    assert kept() == before


@pytest.mark.slow
def test_a_fork_takes_all_that_is_shared_from_the_store_on_a_running_cluster_which_it_leaves_running(undisturbed):
    from ray.cluster_utils import Cluster

    def artifacts() -> set[str]:
        return {str(path.relative_to(undisturbed.results)) for path in undisturbed.results.glob("store/*/*")}

    before = artifacts()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        done = undisturbed.run("--fork", "other", "--address", cluster.address)
        assert done.returncode == 0, done.stdout + done.stderr
        assert cluster.head_node.remaining_processes_alive()
    finally:
        cluster.shutdown()
    other = SmallStudy(undisturbed.results, "other")
    assert other.rows() == undisturbed.rows()
    assert artifacts() == before and "training the generator" not in done.stdout
    costs = json.loads((other.directory / "summary.json").read_text())
    # The first stage of every trial, and the blocks on disk, are the other study's; two epochs each are its own.
    assert (costs["generated_images"], costs["trained_epochs"], costs["shared_epochs"]) == (0, 4 * 2, 4)
