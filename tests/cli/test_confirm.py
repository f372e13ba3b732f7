"""``gitdist confirm`` on a finished study; chapters of one story in the order in which they stand."""

import json
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.rows import read_rows
from tests.commands import call, environment, gitdist
from tests.study.small_study import SmallStudy, wait_for_rows

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]

NAME = "small.confirm-trial1"
FIRST = f"{NAME}.seed1-2"


@pytest.fixture(scope="module")
def results(moved_study: SmallStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("confirm") / "results"
    shutil.copytree(moved_study.results, directory)
    return directory


def confirm(results: Path, *arguments: object) -> list[str]:
    return gitdist("confirm", "small", "--results", results, "--trial", 1, *arguments)


def written(results: Path) -> dict:
    return json.loads((results / "small" / "confirmations" / f"{NAME}.json").read_text())


def trainings(results: Path, study: str) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in (results / study / "trials").glob("*/rows.jsonl")}


def test_it_can_be_interrupted_and_names_the_command_that_resumes_it(results):
    process = subprocess.Popen(
        confirm(results, "--seeds", 2), env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for_rows(SmallStudy(results, name=FIRST))
    process.send_signal(signal.SIGINT)
    out = process.communicate(timeout=200)[0]
    assert process.returncode == 130
    command = shlex.split(out.rpartition("resume with: ")[2].strip())
    assert command[:2] == ["gitdist", "confirm"] and not (results / "small" / "confirmations").exists()
    done = call(gitdist(*command[1:]))
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_settings_are_trained_on_the_same_fresh_seeds_and_share_what_comes_before_the_switch(results):
    found = written(results)
    assert (found["study"], found["trial"], found["pairs"], found["varied"]) == ("small", 1, 2, ["training"])
    paths = StudyPaths.at(results, FIRST)
    rows = [read_rows(paths.rows(trial)) for trial in paths.stored_trials()]
    losses = sorted(each[0].loss for each in rows)
    assert len(rows) == 4 and losses[0] == losses[1] != losses[2] == losses[3]


def test_more_seeds_add_pairs_and_train_nothing_again(results):
    before = trainings(results, FIRST)
    done = call(confirm(results, "--seeds", 3))
    assert done.returncode == 0, done.stdout + done.stderr
    assert written(results)["pairs"] == 3 and trainings(results, FIRST) == before
    assert len(trainings(results, f"{NAME}.seed3-3")) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--vary", "seeds"),
        ("--vary", "generator"),  # the oracle has no training
        ("--trial", 9),
        ("--name", "store"),
        ("--name", "small"),
        ("--vary", "data", "--name", NAME),  # the name of another confirmation
    ],
)
def test_what_cannot_be_confirmed_is_refused_in_one_line(results, arguments):
    done = call(confirm(results, *arguments))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
