"""A campaign of two studies that are really run; chapters of one story in the order in which they stand."""

import json
from io import StringIO
from pathlib import Path

import pytest
import typer
import yaml
from rich.console import Console

from gitdist.cli.run import CommandOptions, run_plan
from gitdist.errors import DiskError, StudyError
from gitdist.spec.file import load_plan
from gitdist.study.campaign import load_campaign
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.results import LocalResults
from gitdist.study.files.rows import read_rows
from gitdist.study.ledger.lease import Lease
from gitdist.study.ledger.ledger import Ledger
from tests.commands import call, gitdist
from tests.disks import fill, small_disk
from tests.study.small_study import NO_MODELS, SPEC

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]

FILE = {
    **SPEC,
    **NO_MODELS,
    "name": "camp",
    "matrix": {"data.nuisance": ["background", "rotation"]},
    "generator": {"kind": "oracle"},
    "methods": {"ERM [all]": {"sampler": "instance", "fraction": 0.0}, "oracle [/few]": {}},
    "baseline": False,
    "sharing": {"stream": False},
    "search": {"algorithm": "grid", "total": 4},
    "evaluation": {**SPEC["evaluation"], "test": "all", "every": 3},
}
NAMES = ("camp.background", "camp.rotation")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("campaign")
    (directory / "camp.yaml").write_text(yaml.safe_dump(FILE, sort_keys=False))
    return directory


def run(place: Path, *overrides: str) -> str:
    """Run the campaign and return what was printed, also where it ends by an error, which is printed last."""
    console = Console(file=StringIO(), width=200)
    try:
        run_plan(load_plan(place / "camp.yaml", overrides), LocalResults(place / "results"), console, CommandOptions())
    except StudyError as error:
        console.print(f"error: {error}", soft_wrap=True)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def rows_of(place: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(place)): file.read_bytes()
        for file in sorted(place.glob("results/camp.*/trials/*/rows.jsonl"))
    }


def test_a_study_that_another_driver_has_is_left_to_it_and_the_next_one_is_run(place):
    plan = load_plan(place / "camp.yaml")
    paths = StudyPaths.at((place / "results").resolve(), NAMES[0])
    paths.create()
    ledger = Ledger.open(paths, plan.members[0].spec)
    with Lease.claim(ledger.storage, NAMES[0]), pytest.raises(typer.Exit) as ended:
        run(place)
    ledger.close()
    assert ended.value.exit_code == 3
    assert not (place / "results" / NAMES[0] / "summary.json").exists()
    assert (place / "results" / NAMES[1] / "summary.json").exists()
    told = call(gitdist("status", "camp", "--results", str(place / "results"))).stdout
    assert NAMES[0] in told and "2 finished" in told and "gitdist resume camp" in told


def test_the_same_command_runs_what_is_left_and_all_trials_are_tested(place):
    done = call(gitdist("resume", "camp", "--results", str(place / "results")))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"study '{NAMES[1]}' is finished; nothing to do" in done.stdout
    for name in NAMES:
        paths = StudyPaths.at(place / "results", name)
        assert not (paths.study / "baseline").exists()
        assert "baseline" not in json.loads(paths.summary.read_text())
        for number in (0, 1):
            trial = TrialId("trial", number)
            assert [row.epoch for row in read_rows(paths.rows(trial))] == [1, 2, 3]
            assert len(json.loads(paths.test(trial).read_text())["ekld_per_class"]) == 10


def test_a_finished_campaign_is_left_as_it_is(place):
    before = rows_of(place)
    told = run(place)
    assert len(before) == 4
    assert rows_of(place) == before
    assert all(method in told for method in FILE["methods"])
    shown = call(gitdist("status", NAMES[0], "--results", str(place / "results")), COLUMNS="200")
    assert all(method in shown.stdout for method in FILE["methods"]), shown.stdout + shown.stderr


def test_a_study_that_cannot_be_run_does_not_keep_the_next_from_it_and_is_named_at_the_end(place):
    ledger = StudyPaths.at(place / "results", NAMES[0]).ledger
    whole = ledger.read_bytes()
    ledger.write_bytes(b"no ledger")
    try:
        told = run(place)
    finally:
        ledger.write_bytes(whole)
    *_, reason, error = told.splitlines()
    assert f"study '{NAMES[1]}' is finished; nothing to do" in told and "balanced accuracy" in told
    assert reason.startswith(f"{NAMES[0]} failed: the ledger {ledger.resolve()} is damaged")
    assert error.startswith(f"error: 1 of 2 studies of 'camp' failed: {NAMES[0]}; fix")
    assert error.endswith(f"gitdist resume camp --results {place / 'results'}")


def test_a_part_of_it_is_run_by_the_value_of_a_field(place):
    told = run(place, "data.nuisance=rotation")
    assert f"1 of 1: {NAMES[1]}" in told and f"study '{NAMES[1]}' is finished; nothing to do" in told
    run(place)


def test_a_full_disk_ends_it_at_the_first_study(tmp_path):
    (tmp_path / "camp.yaml").write_text(yaml.safe_dump(FILE, sort_keys=False))
    with small_disk(tmp_path / "results", "256k") as disk:
        fill(disk, leave=1 << 16)  # room for what is noted, but not for the data set
        with pytest.raises(DiskError):
            run(tmp_path)
        assert sorted(place.name for place in disk.glob("camp*")) == ["camp", NAMES[0]]


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
