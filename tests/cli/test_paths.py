"""A study file with relative paths, run and resumed from other directories than its own."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.commands import call, environment, gitdist
from tests.study.small_study import NO_MODELS, SPEC
from tests.trial.toys import write_digits

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]


def on(directory: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run gitdist in a directory."""
    directory.mkdir(exist_ok=True)
    return call(gitdist(*arguments), cwd=directory)


def stored(results: Path) -> dict:
    return yaml.safe_load((results / "small" / "study.yaml").read_text())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A study file whose arrays and shared store lie beside it."""
    folder = tmp_path / "files"
    write_digits(folder / "arrays")
    data = {**SPEC["data"], "source": "npz", "path": "arrays"}
    values = {**SPEC, **NO_MODELS, "data": data, "store": {"uri": "shared"}, "generator": {"kind": "oracle"}}
    values |= {"search": {"total": 1, "space": {"fraction": {"float": [0.2, 0.8]}}}, "baseline": False}
    values["sharing"] = {"stream": False}
    values["trial"] = {**SPEC["trial"], "epochs": 2}
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    return folder / "study.yaml"


def test_a_study_with_relative_paths_is_run_and_resumed_from_anywhere_and_its_data_may_move(file, tmp_path):
    results, shell, folder = tmp_path / "results", tmp_path / "shell", file.parent
    assert on(shell, "data", "stats", file, "--results", results).returncode == 0
    done = on(shell, "run", file, "--results", results)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(results)["data"]["path"] == f"{folder}/arrays"
    assert stored(results)["store"]["uri"] == f"{folder}/shared"
    assert (folder / "shared").is_dir() and list(shell.iterdir()) == []
    done = on(tmp_path / "other", "resume", "small", "--results", results, "--set", "search.total=2")
    assert done.returncode == 0, done.stdout + done.stderr

    (folder / "arrays").rename(shell / "moved")
    longer = ("resume", "small", "--results", results, "--set", "search.total=3")
    assert on(shell, *longer).returncode == 2
    (shell / "optuna.py").write_text("raise RuntimeError('not the library')")
    moved = gitdist(*longer, "--set", "data.path=moved")  # of the shell's directory
    done = subprocess.run(moved, cwd=shell, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(results)["data"]["path"] == f"{shell}/moved"
    assert json.loads((results / "small" / "summary.json").read_text())["trials"] == {"finished": 3}
    other = shutil.copytree(shell / "moved", shell / "other")
    (other / "train.npz").write_bytes((other / "test.npz").read_bytes())
    refused = on(shell, *longer, "--set", "data.path=other")
    assert refused.returncode == 2 and "was started with the data set" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert stored(results)["data"]["path"] == f"{shell}/moved"
