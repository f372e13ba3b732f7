"""A campaign of two studies that are really run; chapters of one story in the order in which they stand."""

import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from gitdist.cli.run import HowToRun, run_to_the_end
from gitdist.spec.file import load_plan
from gitdist.study.campaign import load_campaign
from gitdist.study.ledger.lease import Lease
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.paths import StudyPaths, TrialId
from gitdist.study.rows import read_rows
from tests.study.small_study import SPEC, call, gitdist

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

FILE = {
    **SPEC,
    "name": "camp",
    "matrix": {"data.nuisance": ["background", "rotation"]},
    "generator": {"kind": "oracle"},
    "methods": {"ERM": {"sampler": "instance", "fraction": 0.0}, "oracle": {}},
    "baseline": False,
    "search": {"algorithm": "grid", "total": 4},
    "evaluation": {**SPEC["evaluation"], "test": "all", "every": 3},
}
NAMES = ("camp.background", "camp.rotation")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("campaign")
    (directory / "camp.yaml").write_text(yaml.safe_dump(FILE, sort_keys=False))
    return directory


def run(place: Path) -> None:
    run_to_the_end(load_plan(place / "camp.yaml"), place / "results", Console(quiet=True), HowToRun())


def rows_of(place: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(place)): file.read_bytes()
        for file in sorted(place.glob("results/camp.*/trials/*/rows.jsonl"))
    }


def test_a_study_that_another_driver_has_is_left_to_it_and_the_next_one_is_run(place):
    plan = load_plan(place / "camp.yaml")
    paths = StudyPaths((place / "results").resolve(), NAMES[0])
    paths.create()
    ledger = Ledger.open(paths, plan.members[0].spec)
    with Lease.claim(ledger.storage, NAMES[0]):
        run(place)
    ledger.close()
    assert not (place / "results" / NAMES[0] / "summary.json").exists()
    assert (place / "results" / NAMES[1] / "summary.json").exists()
    told = call(gitdist("status", "camp", "--results", str(place / "results"))).stdout
    assert NAMES[0] in told and "2 finished" in told and "gitdist resume camp" in told


def test_the_same_command_runs_what_is_left_and_all_trials_are_tested(place):
    done = call(gitdist("resume", "camp", "--results", str(place / "results")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"study '{NAMES[1]}' is finished; nothing to do" in done.stdout
    for name in NAMES:
        paths = StudyPaths(place / "results", name)
        assert not (paths.study / "baseline").exists()
        assert "baseline" not in json.loads(paths.summary.read_text())
        for number in (0, 1):
            trial = TrialId("trial", number)
            assert [row["epoch"] for row in read_rows(paths.rows(trial))] == [1, 2, 3]
            assert len(json.loads(paths.test(trial).read_text())["ekld_per_class"]) == 10


def test_a_finished_campaign_is_left_as_it_is(place):
    before = rows_of(place)
    run(place)
    assert len(before) == 4
    assert rows_of(place) == before


def test_what_is_noted_of_a_campaign_makes_it_again(place):
    assert load_campaign(place / "results", "camp").members == load_plan(place / "camp.yaml").members
    assert load_campaign(place / "results", NAMES[0]) is None


def test_commands_for_one_study_name_the_members(place):
    for command in ("sync", "ui"):
        refused = call(gitdist(command, "camp", "--results", str(place / "results")))
        assert refused.returncode == 2
        assert refused.stderr.startswith("error: 'camp' is a campaign") and NAMES[0] in refused.stderr


def test_a_damaged_note_is_one_line(place):
    noted = place / "results" / "camp" / "campaign.yaml"
    whole = noted.read_bytes()
    noted.write_bytes(whole[:40])
    refused = call(gitdist("resume", "camp", "--results", str(place / "results")))
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "run its study file again" in refused.stderr
    noted.write_bytes(whole)
