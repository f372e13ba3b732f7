"""``status`` and ``report`` without a name, and what shells complete."""

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import call, gitdist
from tests.study.small_study import SmallStudy


def complete(*words: str) -> list[str]:
    shell = {
        "_GITDIST_COMPLETE": "complete_bash",
        "COMP_CWORD": str(len(words)),
        "COMP_WORDS": " ".join(("gitdist", *words)),
    }
    return call(gitdist(), **shell).stdout.split()


@pytest.mark.parametrize("command", ["status", "report"])
def test_an_empty_results_directory_has_no_study(command, tmp_path):
    done = call(gitdist(command, "--results", tmp_path / "results"))
    assert done.returncode == 0 and "no study" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.ray
@pytest.mark.usefixtures("shared_ray")
def test_all_studies_are_listed(moved_study: SmallStudy, tmp_path):
    shutil.copytree(moved_study.results, tmp_path / "results")
    damaged = tmp_path / "results" / "damaged"
    damaged.mkdir()
    (damaged / "study.yaml").write_text("name: [")
    listed = json.loads(call(gitdist("status", "--results", tmp_path / "results", "--json")).stdout)
    assert [(entry["name"], entry["finished"], entry["total"]) for entry in listed] == [
        ("damaged", 0, 0),
        (moved_study.name, 2, 2),
    ]
    assert listed[1]["state"] == "finished" and listed[1]["best"] and listed[1]["at"]
    shown = call(gitdist("report", "--results", tmp_path / "results"))
    assert shown.returncode == 0 and moved_study.name in shown.stdout and "2 of 2" in shown.stdout


def test_names_of_studies_and_starts_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, file in {"results/first": "study.yaml", "results/fig": "campaign.yaml", "results/store": "x"}.items():
        Path(name).mkdir(parents=True)
        Path(name, file).touch()
    Path("fotos").mkdir()
    assert complete("status", "f") == ["fig", "first"]
    assert complete("report", "first", "fi") == ["fig", "first"]
    assert complete("status", "--results", "elsewhere", "f") == []
    assert complete("init", "f") == ["fashion-mnist", "fotos"]
    assert complete("init", "quick") == ["quickstart"]
