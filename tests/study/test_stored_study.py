"""A study that an earlier version began resumes: stored results whose driver was killed in the second of two trials.

``begun_study.tar.xz`` holds ``results`` as commit 715e74d left them: baseline and trial 0 finished, trial 1 trained for
two of three epochs. To make it small, the store and the checkpoints of the finished trials are left out, the weights in
trial 1's checkpoint are rounded to one bit each, and the pictures have eight colours. The driver's lease ended in 2020,
whatever the clock. ``expected_rows.json`` holds the rows, without times, after that commit resumed the results itself.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from gitdist.study.files.rows import read_rows
from tests.commands import call, gitdist
from tests.study.small_study import SmallStudy, check_whole

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]

STORED = Path(__file__).parent / "begun_study.tar.xz"


def test_a_study_of_an_earlier_version_resumes(tmp_path):
    with tarfile.open(STORED) as archive:
        archive.extractall(tmp_path, filter="data")
    study = SmallStudy(tmp_path / "results", name="begun")
    first, second = (study.directory / "trials" / number for number in ("0000", "0001"))
    finished, begun = (first / "rows.jsonl").read_bytes(), read_rows(second / "rows.jsonl")
    before, names = study.trials(), names_on_disk(study)
    assert [trial.state.name for trial in before] == ["COMPLETE", "RUNNING"] and len(begun) == 2

    done = call(gitdist("resume", study.name, "--results", str(study.results)))
    assert done.returncode == 0, done.stdout + done.stderr

    check_whole(study, 2)
    assert (first / "rows.jsonl").read_bytes() == finished
    assert read_rows(second / "rows.jsonl")[:2] == begun, "trial 1 did not resume from its checkpoint"
    check_rows(study, json.loads((tmp_path / "expected_rows.json").read_text()))
    after = study.trials()
    assert after[0] == before[0]
    assert after[1].params == before[1].params
    assert before[1].intermediate_values.items() <= after[1].intermediate_values.items()
    named = names_on_disk(study)
    of_study = {name for name in named.pop("study attributes") if not name.endswith(" on test")}
    assert of_study == names.pop("study attributes") | {"gitdist.source"}
    for found, known in zip(named.pop("run"), names.pop("run"), strict=True):
        assert found >= known, "what MLflow's run had under a name it still has"
    assert named == names


def names_on_disk(study: SmallStudy) -> dict[str, Any]:
    """The names under which the ledger, MLflow and a checkpoint hold what they hold."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{study.directory / 'ledger.db'}")
    studies = {name: optuna.load_study(study_name=name, storage=storage) for name in ("begun", "begun.owners")}
    checkpoint = torch.load(max((study.directory / "trials" / "0001").glob("epoch-*.pt")), weights_only=True)
    (run,) = [run for run in study.runs() if run.info.run_name == "trial 0000"]
    names = {
        "study attributes": set(studies["begun"].user_attrs),
        "lease attributes": set(studies["begun.owners"].trials[-1].user_attrs),
        "checkpoint": set(checkpoint),
        "run": (set(run.data.tags), set(run.data.params), set(run.data.metrics)),
    }
    storage.remove_session()
    storage.engine.dispose()
    return names


def check_rows(study: SmallStudy, expected: dict[str, list[dict[str, Any]]]) -> None:
    found = study.rows()
    assert found.keys() == expected.keys()
    for trial, rows in found.items():
        for row, other in zip(rows, expected[trial], strict=True):
            assert row.keys() == other.keys()
            # Another processor may add in another order.
            assert numbers(row) == pytest.approx(numbers(other), rel=0.01, abs=0.05), (trial, row["epoch"])


def numbers(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if isinstance(value, int | float)}
