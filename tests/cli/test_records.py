"""Records that somebody changed by hand (an edited study.yaml, deleted directories), on a study that is really run.

The tests are chapters of one story, in the order in which they stand.
"""

import csv
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.commands import call, gitdist
from tests.study.small_study import SmallStudy, check_mlflow, check_whole

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]


def on(study: SmallStudy, name: str, *arguments: str):
    return call(gitdist(name, study.name, "--results", str(study.results), *arguments))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, moved_study) -> SmallStudy:
    copy = replace(moved_study, results=tmp_path_factory.mktemp("records") / "results")
    shutil.copytree(moved_study.results, copy.results)
    return copy


def assert_refused(done, *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and all(word in lines[0] for word in words), done.stderr


def test_an_edited_study_file_is_refused_where_it_would_be_run_and_told_elsewhere(finished):
    file = finished.directory / "study.yaml"
    before, rows = file.read_text(), finished.rows()
    edited = yaml.safe_load(before)
    edited["trial"]["lr"], edited["search"]["total"] = 0.05, 3
    file.write_text(yaml.safe_dump(edited, sort_keys=False))
    words = [str(file), "trial.lr is 0.05 and was 0.1", "search.total is 3 and was 2", "--set"]
    for done in (on(finished, "resume"), finished.run(), on(finished, "retry", "--failed")):
        assert_refused(done, *words)
    for name, *arguments in (("status",), ("report",), ("sync",)):
        done = on(finished, name, *arguments)
        assert done.returncode == 0 and done.stdout.count(words[1]) == 1, done.stdout + done.stderr
    assert any(words[1] in note for note in json.loads(on(finished, "status", "--json").stdout)["notes"])
    file.write_text(before)
    assert "nothing to do" in on(finished, "resume").stdout
    assert finished.rows() == rows and "edited" not in on(finished, "status").stdout


def test_a_removed_study_file_does_not_let_another_study_go_on_in_its_place(finished):
    file = finished.directory / "study.yaml"
    before = file.read_bytes()
    file.unlink()
    assert_refused(finished.run("--set", "trial.lr=0.05"), "trial.lr", "0.05", "0.1", "--fork")
    assert not file.exists()
    done = finished.run()
    assert done.returncode == 0 and "nothing to do" in done.stdout, done.stdout + done.stderr
    assert file.read_bytes() == before


def states_by_report(study: SmallStudy) -> dict[str, tuple[str, int]]:
    done = on(study, "report")
    assert done.returncode == 0, done.stdout + done.stderr
    with open(study.directory / "report" / "tables" / "trials.csv") as file:
        return {row["trial"]: (row["state"], int(row["epochs"])) for row in csv.DictReader(file)}


def states_by_status(study: SmallStudy) -> dict[str, tuple[str, int]]:
    values = json.loads(on(study, "status", "--json").stdout)
    return {trial["trial"]: (trial["state"], trial["epoch"]) for trial in values["trials"]}


def statuses(study: SmallStudy) -> dict[str, str]:
    return {run.info.run_name: run.info.status for run in study.runs()}


def test_a_trial_without_its_directory_is_told_alike_and_trained_again(finished):
    best = json.loads((finished.directory / "summary.json").read_text())["best"]["number"]
    rows = finished.rows()
    shutil.rmtree(finished.directory / "trials" / f"{best:04d}")
    expected = {"baseline": ("finished", 2), "0": ("finished", 2), "1": ("finished", 2), str(best): ("interrupted", 0)}
    assert states_by_status(finished) == states_by_report(finished) == expected
    values = json.loads(on(finished, "status", "--json").stdout)
    assert values["state"] == "interrupted" and [each["trial"] for each in values["best"]] == [1 - best]
    shown, report = on(finished, "status").stdout, on(finished, "report").stdout
    told = f"trial {best} finished with val/balanced_accuracy "
    assert shown.count(told) == report.count(told) == 1
    assert on(finished, "sync").returncode == 0
    assert statuses(finished)[f"trial {best:04d}"] == statuses(finished)["small"] == "KILLED"
    done = on(finished, "resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert finished.rows() == rows
    check_whole(finished, 2, epochs=2)
    assert json.loads((finished.directory / "summary.json").read_text())["best"]["number"] == best


def test_a_baseline_without_its_directory_is_told_alike_and_trained_again(finished):
    rows = finished.rows()
    shutil.rmtree(finished.directory / "baseline")
    assert states_by_status(finished) == states_by_report(finished)
    assert states_by_status(finished)["baseline"] == ("interrupted", 0)
    assert on(finished, "sync").returncode == 0
    assert statuses(finished)["baseline"] == statuses(finished)["small"] == "KILLED"
    assert on(finished, "resume").returncode == 0
    assert finished.rows() == rows
    check_mlflow(finished, Counter({"study": 1, "generator": 1, "baseline": 1, "trial": 2}), 2)


def test_a_trial_without_its_description_is_told_alike(finished):
    (finished.directory / "trials" / "0000" / "trial.json").unlink()
    assert states_by_status(finished) == states_by_report(finished)
    with open(finished.directory / "report" / "tables" / "trials.csv") as file:
        accuracy = {row["trial"]: row["validation balanced accuracy (0..1)"] for row in csv.DictReader(file)}
    assert all(accuracy.values())


def test_rows_that_differ_from_the_ledger_are_told(finished):
    file = finished.directory / "trials" / "0001" / "rows.jsonl"
    before = file.read_text()
    rows = [json.loads(line) for line in before.splitlines()]
    rows[-1]["val/balanced_accuracy"] = 0.999
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("status", "report"):
        done = on(finished, name)
        assert (
            done.returncode == 0
            and "rows of trial 1 changed since it finished: val/balanced_accuracy 0.999" in done.stdout
        )
    file.write_text(before)
    assert "changed since" not in on(finished, "status").stdout


def test_an_edited_campaign_does_not_change_studies_that_were_started(tmp_path: Path):
    values = {
        "name": "camp",
        "data": {"source": "digits", "nuisance": "background"},
        "generator": {"kind": "identity"},
        "matrix": {"data.version": [0, 1]},
        "search": {"total": 0},
        "baseline": False,
    }
    file, results = tmp_path / "camp.yaml", tmp_path / "results"
    file.write_text(yaml.safe_dump(values))
    done = call(gitdist("run", str(file), "--results", str(results)))
    assert done.returncode == 0, done.stdout + done.stderr
    stored = results / "camp" / "campaign.yaml"
    edited = yaml.safe_load(stored.read_text())
    edited["file"]["trial"] = {"lr": 0.05}
    stored.write_text(yaml.safe_dump(edited))
    assert_refused(call(gitdist("resume", "camp", "--results", str(results))), "trial.lr", "0.05", "0.1")
