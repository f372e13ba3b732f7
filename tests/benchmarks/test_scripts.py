"""The scripts at toy size."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import evaluation
import generation
import psutil
import pytest
import torch
import training
from harness import Setting

from gitdist.spec import IdentitySpec, Share
from gitdist.spec.file import load_study
from gitdist.stream.launch import launch_stream
from gitdist.stream.server import ServerConfig
from tests.waiting import until

SCRIPTS = Path(__file__).parents[2] / "studies" / "benchmarks"
DIGITS = SCRIPTS / "digits.yaml"
SMALL = ["data.profile.largest=10", "data.validation_per_class=2"]


@pytest.fixture
def threads_kept() -> Iterator[None]:
    """Benchmarks set torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_script_prints_its_figures_and_writes_them_with_where_they_were_measured(tmp_path):
    overrides = [part for override in SMALL for part in ("--set", override)]
    command = [SCRIPTS / "evaluation.py", "--study", DIGITS, "--repeats", 1, "--results", tmp_path, *overrides]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "original way" in done.stdout, done.stdout + done.stderr
    result = json.loads((tmp_path / "benchmarks" / "evaluation.json").read_text())
    header = result["header"]
    assert {"cores", "cpu", "device", "gpu", "torch_threads", "bf16_units", "date"} <= header.keys()
    assert set(header["versions"]) == {"gitdist", "torch", "ray", "numpy", "python"}
    assert (header["repeats"], header["study"]["name"]) == (1, "bench-digits")
    assert all(figure["median"] > 0 for figure in result["figures"])


def test_a_study_that_cannot_be_measured_is_one_line(tmp_path):
    command = [SCRIPTS / "evaluation.py", "--study", tmp_path / "none.yaml"]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: no study file") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(("benchmark", "num_sides"), [(training, 5), (evaluation, 2)])
def test_each_side_has_a_figure_from_each_repeat(benchmark, num_sides, tmp_path, threads_kept):
    figures = benchmark.measure(Setting.prepare(load_study(DIGITS, SMALL), tmp_path, 2))
    assert len([figure for figure in figures if figure.unit.endswith("/s")]) == num_sides
    assert all(len(figure.values) == 2 and min(figure.values) > 0 for figure in figures)


@pytest.mark.ray
def test_a_turn_generates_what_one_reader_needs_however_many_read(ray_cluster, tmp_path, monkeypatch):
    import ray

    ray.cloudpickle.register_pickle_by_value(generation)
    monkeypatch.setattr(generation, "NUM_READERS", (1, 2))
    setting = Setting.prepare(load_study(DIGITS), tmp_path, 1)
    stream, count = setting.spec.stream, 5
    config = ServerConfig(
        dataset=setting.dataset.directory, generator=IdentitySpec(), artifact=None, stream=stream, device="cpu"
    )
    with launch_stream("benchmark-test", config, Share(cpu=0.5)) as handle:
        readers = generation.Readers(handle, setting, stream, count)
        assert all(readers.read(num_readers) > 0 for num_readers in (1, 2, 1))
    wanted = len(setting.tail) * count * stream.block_size
    turns = [*readers.turns[1], *readers.turns[2][1:]]
    assert [(turn.generated, turn.taken) for turn in turns] == [(wanted, wanted)] * 3


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_whole_studies_end_with_their_benchmark_and_are_compared(tmp_path):
    folder = tmp_path / "benchmarks"
    command = [SCRIPTS / "whole_study.py", "--study", DIGITS, "--trials", 2, "--results", tmp_path]
    ended = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.PIPE, text=True)
    until(lambda: list(folder.glob("study-*/bench-digits.yaml")))
    processes = psutil.Process(ended.pid).children(recursive=True)
    ended.terminate()
    ended.communicate(timeout=60)
    assert ended.returncode == 130
    assert not list(folder.iterdir()) and not psutil.wait_procs(processes, timeout=30)[1]

    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [file.name for file in folder.iterdir()] == ["whole_study.json"]
    figures = {each["name"]: each for each in json.loads((folder / "whole_study.json").read_text())["figures"]}
    prefix, rest, baseline = 4, 1, 1
    assert figures["trained, 1 trial"]["median"] == prefix + rest * (baseline + 1)
    assert figures["trained, 2 trials"]["median"] == prefix + rest * (baseline + 2)
    assert figures["trained, 2 trials, sharing off"]["median"] == (prefix + rest) * (baseline + 2)
    assert figures["trained, 2 trials, original way"]["median"] == (prefix + rest) * (baseline + 2)
    assert figures["generated, 2 trials / 1 trial"]["met"] and figures["rows that differ, off / on"]["met"]
