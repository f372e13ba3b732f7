import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cli.test_errors import assert_refused, gitdist

DIGITS = Path(__file__).parents[2] / "studies" / "benchmarks" / "digits.yaml"


def test_a_benchmark_prints_its_table_and_leaves_json(tmp_path):
    done = gitdist("bench", "ekld", "--study", DIGITS, "--repeats", 2, "--results", tmp_path)
    assert done.returncode == 0, done.stderr
    assert all(words in done.stdout for words in ("original way", "2 repeats", "ekld.json"))
    result = json.loads((tmp_path / "bench" / "ekld.json").read_text())
    header = result["header"]
    assert {"versions", "cores", "cpu", "device", "gpu", "torch_threads", "bf16_units", "date"} <= header.keys()
    assert set(header["versions"]) == {"gitdist", "torch", "ray", "numpy", "python"}
    assert header["precision"].keys() == {"trial", "generator"}
    assert (header["repeats"], header["study"]["name"]) == (2, "bench-digits")
    assert len(result["figures"]) == 4 and len(result["ratios"]) == 1
    assert all(each["lowest"] <= each["median"] <= each["highest"] for each in result["figures"])


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
