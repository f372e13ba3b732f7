import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from gitdist.bench.catalogue import BENCHMARKS
from gitdist.bench.setting import Setting
from gitdist.spec.file import load_study
from tests.cli.test_errors import assert_refused, gitdist
from tests.waiting import until

DIGITS = Path(__file__).parents[2] / "studies" / "benchmarks" / "digits.yaml"


@pytest.fixture
def own_threads() -> Iterator[None]:
    """Benchmarks set torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_a_benchmark_that_is_ended_leaves_no_study_and_the_next_one_counts(tmp_path):
    place = tmp_path / "bench"
    command = [sys.executable, "-m", "gitdist", "bench", "scale", "--study", DIGITS, "--results", tmp_path]
    ended = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)
    until(lambda: list(place.glob("whole-*/bench-digits.yaml")))
    processes = psutil.Process(ended.pid).children(recursive=True)
    ended.terminate()
    assert "interrupted" in ended.communicate(timeout=60)[0] and ended.returncode == 130
    assert not list(place.iterdir()) and not psutil.wait_procs(processes, timeout=30)[1]

    (place / "whole-killed").mkdir()
    done = gitdist("bench", "scale", "--study", DIGITS, "--results", tmp_path, "--trials", 2, limit_s=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(words in done.stdout for words in ("1 repeat", "generated, 2 trials", "target", "scale.json"))
    assert [each.name for each in place.iterdir()] == ["scale.json"]
    check_scale(json.loads((place / "scale.json").read_text()))


def check_scale(result: dict) -> None:
    header = result["header"]
    assert {"versions", "cores", "cpu", "device", "gpu", "torch_threads", "bf16_units", "date"} <= header.keys()
    assert set(header["versions"]) == {"gitdist", "torch", "ray", "numpy", "python"}
    assert header["precision"].keys() == {"trial", "generator"}
    assert (header["repeats"], header["study"]["name"]) == (1, "bench-digits")
    found = {each["name"]: each["median"] for each in result["figures"]}
    assert found["generated, 1 trial"] == found["generated, 2 trials"] > 0
    prefix, rest, baseline = 4, 1, 1
    assert found["trained, 1 trial"] == prefix + rest * (baseline + 1)
    assert found["trained, 2 trials"] == prefix + rest * (baseline + 2)
    assert {each["name"]: each["met"] for each in result["ratios"]}["generated with 2 trials / with 1"] is True


@pytest.mark.parametrize(("name", "num_sides"), [("trial", 3), ("ekld", 2)])
def test_a_benchmark_has_a_figure_of_each_side_from_each_repeat(name, num_sides, tmp_path, own_threads):
    spec = load_study(DIGITS, ["data.profile.largest=10", "data.validation_per_class=2"])
    found = BENCHMARKS[name].measure(Setting.prepare(spec, tmp_path, 2, None, lambda told: None))
    rates = [each for each in found.figures if each.unit.endswith("/s")]
    assert len(rates) == num_sides and found.verdicts
    assert all(0 < each.spread.lowest <= each.spread.median <= each.spread.highest for each in found.figures)


def test_an_unknown_benchmark(tmp_path):
    done = gitdist("bench", "generators", "--study", DIGITS, "--results", tmp_path / "results")
    assert_refused(done, "unknown benchmark 'generators'", "did you mean 'generator'")
    assert not (tmp_path / "results").exists()


def test_no_study_to_measure(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "gitdist", "bench", "ekld"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert_refused(done, "studies/benchmarks/fashion.yaml", "--study FILE")
    assert not list(tmp_path.iterdir())
