"""The commands that go on with a study, on one small study that is really run.

The tests are chapters of one story, in the order in which they stand: finished, made longer, refused, synced.
"""

import json
import subprocess
from collections import Counter
from pathlib import Path

import optuna
import pytest
import yaml

from gitdist.study.files.layout import StudyPaths
from gitdist.study.ledger.storage import close_storage, open_storage
from tests.commands import call, environment, gitdist
from tests.study.small_study import SmallStudy, check_mlflow, wait_for_rows

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]

# every trial fails in its first epoch, and the baseline with them
BROKEN = ("generator={kind: identity}", "search.total=1", "trial.lr=1.0e+30", "trial.lr_warmup_epochs=0")
SOUND = (
    "data.nuisance=none",
    "sharing.stream=false",
    "generator={kind: identity}",
    "search.total=1",
    "search.objective=[val/balanced_accuracy, val/ekld]",
    "search.constraints=[ekld <= 0.5, balanced_accuracy >= 0]",
)


def on(study: SmallStudy, command: str, *arguments: str):
    return call(gitdist(command, study.name, "--results", str(study.results), *arguments))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> SmallStudy:
    study = SmallStudy(tmp_path_factory.mktemp("finished"), overrides=SOUND)
    done = study.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no other trial is better in all objectives" in done.stdout
    assert "under the identity" in done.stdout
    return study


def test_a_study_with_two_objectives_has_a_pareto_set_in_its_summary(finished):
    summary = json.loads((finished.directory / "summary.json").read_text())
    assert summary["objectives"] == ["val/balanced_accuracy", "val/ekld"]
    assert [chosen["number"] for chosen in summary["pareto"]] == [0]
    assert set(summary["pareto"][0]["test"]) >= {"test/balanced_accuracy", "test/ekld"}


def test_the_ledger_has_the_names_that_optunas_programs_show(finished):
    storage = open_storage("sqlite", StudyPaths.at(finished.results, finished.name))
    study = optuna.load_study(study_name=finished.name, storage=storage)
    last = finished.rows()["0000"][-1]
    (trial,), names = study.trials, ("val/balanced_accuracy", "val/ekld")
    assert study.metric_names == [*names]
    assert (trial.values, [trial.user_attrs[name] for name in names]) == ([last[name] for name in names],) * 2
    violations = {"val/ekld <= 0.5": last["val/ekld"] - 0.5, "val/balanced_accuracy >= 0": -last[names[0]]}
    assert trial.constraints == violations
    assert [best.number for best in study.best_trials] == [0]
    for role, name in (("trial 0", "trials/0000"), ("baseline", "baseline")):
        on_test = json.loads((finished.directory / name / "test.json").read_text())["metrics"]
        assert study.user_attrs[f"{role} on test"] == on_test
    (run,) = [run for run in finished.runs() if run.data.tags.get("gitdist.trial") == "0"]
    assert trial.user_attrs["mlflow.run_id"] == run.info.run_id
    close_storage(storage)


def test_without_a_known_nuisance_ekld_is_under_the_generator(finished):
    summary = json.loads((finished.directory / "summary.json").read_text())
    assert summary["ekld_under"] == "identity"
    for chosen in (summary["best"], summary["baseline"]):
        assert chosen["val"]["val/ekld"] == chosen["test"]["test/ekld"] == 0  # the identity changes nothing


def test_status_as_json_is_one_object_that_says_all(finished):
    values = json.loads(on(finished, "status", "--json").stdout)
    assert (values["state"], values["total"], values["counts"]) == ("finished", 1, {"finished": 1})
    assert [(trial["trial"], trial["epoch"]) for trial in values["trials"]] == [("baseline", 3), ("0", 3)]
    assert values["best"][0]["trial"] == 0 and len(values["best"][0]["objectives"]) == 2
    assert values["owner"] is None


def test_resume_of_a_finished_study_does_nothing_and_of_none_is_refused(finished, tmp_path):
    done = on(finished, "resume")
    assert done.returncode == 0 and "nothing to do" in done.stdout
    done = call(gitdist("resume", "nothing", "--results", str(tmp_path / "empty")))
    assert done.returncode == 2 and "no study 'nothing'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_longer_study_goes_on_and_keeps_its_first_trials_though_killed_at_its_very_end(finished):
    before = finished.rows()
    driver = subprocess.Popen(
        gitdist("resume", finished.name, "--results", str(finished.results), "--set", "search.total=2"),
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    wait_for_rows(finished, "trials/0001", 3)
    driver.kill()  # in the evaluation on test, or just before
    driver.wait()
    assert json.loads(on(finished, "status", "--json").stdout)["state"] == "interrupted"
    done = on(finished, "resume")
    assert done.returncode == 0 and "nothing to do" not in done.stdout, done.stdout + done.stderr
    after = finished.rows()
    assert {name: after[name] for name in before} == before and set(after) - set(before) == {"0001"}
    assert json.loads((finished.directory / "summary.json").read_text())["trials"] == {"finished": 2}
    check_mlflow(finished, Counter({"study": 1, "generator": 1, "baseline": 1, "trial": 2}), 3)


def test_a_forbidden_change_is_refused_with_field_both_values_and_remedy(finished):
    done = finished.run("--set", "trial.batch_size=16", "--set", "search.total=2")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert all(word in done.stderr for word in ("trial.batch_size", "32", "16", "--fork"))
    assert yaml.safe_load((finished.directory / "study.yaml").read_text())["trial"]["batch_size"] == 32


def test_sync_fills_an_empty_mlflow_and_the_second_time_has_nothing_to_do(finished):
    database = finished.results / "mlflow.db"
    before = {run.info.run_name: run.data.metrics for run in finished.runs()}
    database.rename(finished.results / "mlflow.old")
    done = on(finished, "sync")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {run.info.run_name: run.data.metrics for run in finished.runs()} == before
    assert f"{len(before)} runs created" in done.stdout
    check_mlflow(finished, Counter({"study": 1, "generator": 1, "baseline": 1, "trial": 2}), 3)
    again = on(finished, "sync")
    assert "0 runs created, 0 epochs added, 0 statuses fixed" in again.stdout


@pytest.mark.slow
def test_failed_trials_are_tried_again_under_new_numbers(tmp_path: Path):
    study = SmallStudy(tmp_path, overrides=BROKEN)
    done = study.run()
    retry = f"gitdist retry small --failed --results {tmp_path}"
    assert done.returncode == 2 and "first failed with: " in done.stderr and retry in done.stderr
    shown = json.loads(on(study, "status", "--json").stdout)
    assert shown["state"] == "failed" and shown["counts"] == {"failed": 1}
    assert "epoch 1" in shown["trials"][1]["reason"]
    assert retry in on(study, "status").stdout
    done = on(study, "retry", "--failed")
    assert "trying again: trial 0 as trial 1, the baseline" in done.stdout
    assert [trial.state.name for trial in study.trials()] == ["FAIL", "FAIL"]
    assert [trial.params for trial in study.trials()][0] == study.trials()[1].params
    assert sorted(place.name for place in (study.directory / "trials").iterdir()) == ["0000", "0001"]
    assert sorted(study.statuses()) == ["FAILED"] * 4 + ["FINISHED"]  # parent, baseline, two trials; generator
    assert "0 runs created, 0 epochs added, 0 statuses fixed" in on(study, "sync").stdout
    refused = on(study, "retry")
    assert refused.returncode == 2 and "--failed" in refused.stderr
