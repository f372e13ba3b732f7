"""The script for a GPU, at toy size on the CPU."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gpu
import pytest

from gitdist.spec.file import load_study

DIGITS = Path(gpu.__file__).parent / "digits.yaml"


def test_the_parts_without_ray_have_figures_and_the_file_says_where_they_are_from(tmp_path):
    only = [part for name in ("decoding", "munit steps") for part in ("--only", name)]
    command = [sys.executable, gpu.__file__, "--toy", "--out", tmp_path / "gpu.json", *only]
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert {"date", "torch", "gpu"} <= set(report["header"]) and report["toy"]
    parts = report["parts"]
    assert not [part["left_out"] for part in parts.values() if "left_out" in part]
    names = [figure["name"] for figure in parts["decoding"]["figures"]]
    assert len(names) == len(set(names)) and any("authors" in name for name in names)
    figures = parts["decoding"]["figures"] + parts["munit steps"]["figures"]
    assert all(len(figure["values"]) == 3 and figure["lowest"] > 0 for figure in figures)


def test_a_part_that_cannot_run_has_a_reason_and_costs_no_other_part(monkeypatch):
    whole = gpu.PARTS["environment"]
    monkeypatch.setitem(gpu.PARTS, "environment", replace(whole, packages=("torch", "no_such_package")))
    assert "no_such_package" in gpu.run_part("environment", [])["left_out"]
    monkeypatch.setitem(gpu.PARTS, "environment", replace(whole, limit_s=0.01))
    assert "took more than 0.01 s" in gpu.run_part("environment", [])["left_out"]
    assert "--unknown" in gpu.run_part("decoding", ["--unknown"])["left_out"]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_study_has_metrics_for_each_group_of_seeds(tmp_path):
    changes = (
        "search.space={seed: {choice: [0, 1]}}",
        "search.try_first=[]",
        "search.algorithm=grid",
        "baseline=false",
    )
    figures = list(gpu.study(gpu.Options(DIGITS, (*changes, "evaluation.test=all"), toy=True)))
    assert len(figures) == 3 and all("half_interval" in figure for figure in figures[1:])


def test_all_parts_fit_into_eight_minutes_and_the_study_is_valid():
    assert sum(part.limit_s for part in gpu.PARTS.values()) < 480
    study = load_study(DIGITS.with_name("gpu.yaml"))
    assert study.search.total == 6
