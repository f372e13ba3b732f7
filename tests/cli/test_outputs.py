"""Output files that are inputs, devices or what the command prints to; paths in the home directory."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from gitdist.cli.outputs import check_output
from gitdist.errors import SpecError
from gitdist.spec.file import parse_study
from tests.cli.test_errors import QUICKSTART, assert_refused
from tests.commands import call, environment, gitdist
from tests.trial.toys import write_digits

STUDY = {"name": "a", "data": {"source": "npz", "path": "arrays"}, "generator": {"kind": "identity"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with a study file and its data, which is also the home directory."""
    write_digits(tmp_path / "arrays")
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    return tmp_path


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return call(gitdist(*arguments), cwd=folder, HOME=str(folder))


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file() and "results" not in file.parts}


def test_an_input_is_not_overwritten_by_whatever_name(folder: Path) -> None:
    (folder / "link.png").symlink_to("study.yaml")
    os.link(folder / "arrays" / "train.npz", folder / "hard.png")
    before = contents(folder)
    for out in ("study.yaml", "link.png", "arrays/train.npz", "hard.png"):
        assert_refused(run(folder, "generator", "preview", "study.yaml", "--out", out), "--out", out)
        assert_refused(run(folder, "data", "stats", "study.yaml", "--thumbnails", out), "--thumbnails", out)
    assert_refused(run(folder, "generator", "import", "study.yaml", "--out", "link.png"), "--out", "link.png")
    assert contents(folder) == before and (folder / "link.png").is_symlink()


def test_weights_that_trials_begin_with_are_not_overwritten(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    space = {"pretrained": {"choice": [False, str(weights)]}}
    spec = parse_study({"name": "a", "search": {"space": space}}, "the test")
    with pytest.raises(SpecError, match="weights.safetensors"):
        check_output("--out", weights, tmp_path / "study.yaml", spec)


def test_a_list_may_name_what_cannot_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a\0.png 0\n")
    data = {"source": "list", "path": str(tmp_path), "train": str(tmp_path / "train.txt")}
    spec = parse_study({"name": "a", "data": data}, "the test")
    (tmp_path / "sheet.png").touch()
    check_output("--thumbnails", tmp_path / "sheet.png", tmp_path / "study.yaml", spec)
    with pytest.raises(SpecError, match="train.txt"):
        check_output("--thumbnails", tmp_path / "train.txt", tmp_path / "study.yaml", spec)


def test_a_device_is_not_replaced(folder: Path) -> None:
    done = run(folder, "data", "stats", "study.yaml", "--thumbnails", "/dev/null")
    assert done.returncode == 2 and "/dev/null" in done.stderr and done.stderr.count("\n") == 1
    assert Path("/dev/null").is_char_device()
    assert_refused(run(folder, "data", "stats", "study.yaml", "--thumbnails", "/dev/stdout"), "/dev/stdout")


def test_a_deleted_working_directory_is_named(tmp_path: Path) -> None:
    command = f"mkdir gone && cd gone && rmdir ../gone && exec {shlex.join(gitdist('status', 'a'))}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert_refused(done, "the working directory has been deleted")


def test_a_tilde_is_the_home_directory_in_every_path(folder: Path) -> None:
    shutil.copy(QUICKSTART, folder / "quick.yaml")
    stats = ("data", "stats", "~/study.yaml", "--results=~/results", "--thumbnails=~/sheet.png")
    done = run(folder, *stats, "--set", "data.path=~/arrays", "--set", "store.uri=~/shared")
    assert done.returncode == 0, done.stderr
    assert {"results", "sheet.png", "shared"} <= {file.name for file in folder.iterdir()} and not (
        folder / "~"
    ).exists()
    for command in (
        ("store", "ls", "--results=~nobody-here/x"),
        ("status", "~nobody-here/study.yaml"),
        ("data", "stats", "study.yaml", "--set", "data.path=~nobody-here/x"),
    ):
        assert_refused(run(folder, *command), "~nobody-here")
