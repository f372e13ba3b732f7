"""This machine examined."""

import importlib.metadata
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
import ray

import gitdist
from gitdist.doctor import machine
from gitdist.doctor.machine import DirectoryReport, MachineReport, describe_directory, describe_machine, file_system_of
from gitdist.doctor.time_limit import NoAnswerError, answer_within, any_abandoned


def describe() -> MachineReport:
    return MachineReport(**describe_machine(all_gpus=False))


def test_a_machine_reports_versions_limits_and_temporary_directory(monkeypatch):
    with tempfile.TemporaryDirectory() as directory:  # pytest's may be too long for sockets
        monkeypatch.setenv("RAY_TMPDIR", directory)
        report = describe()
    assert report.versions["gitdist"] == gitdist.__version__ and report.versions["ray"] == ray.__version__
    assert report.versions["torch"] == importlib.metadata.version("torch")
    assert report.gpu_error is None and len(report.code or "") == 10
    shm = os.statvfs("/dev/shm")
    assert report.shared_memory_bytes == shm.f_blocks * shm.f_frsize
    assert 0 < report.allotted_cpus <= len(os.sched_getaffinity(0)) <= report.cpus
    assert report.memory_bytes > 0 and report.open_files > 0
    assert report.temporary == directory and report.temporary_error is None and 0 < report.temporary_free < 1


def test_a_temporary_directory_that_cannot_be_used_is_named(monkeypatch):
    monkeypatch.setattr(machine, "_ASK_TORCH", "print([])")
    monkeypatch.setenv("RAY_TMPDIR", "/proc/missing")
    assert "/proc/missing" in (describe().temporary_error or "")


def test_a_torch_that_fails_or_hangs_is_one_line(monkeypatch):
    monkeypatch.setattr(machine, "_ASK_TORCH", "import no_torch_here")
    assert describe().gpu_error == "ModuleNotFoundError: No module named 'no_torch_here'"
    monkeypatch.setattr(machine, "_ASK_TORCH", "import time; time.sleep(60)")
    monkeypatch.setattr(machine, "_TORCH_S", 0.5)
    assert "0.5 s" in (describe().gpu_error or "")


def test_gpus_hidden_from_this_process_are_hidden_from_its_study_and_a_worker_reports_its_nodes(monkeypatch):
    asked = "import json, os; print(json.dumps(os.environ.get('CUDA_VISIBLE_DEVICES', 'all').split(',')))"
    monkeypatch.setattr(machine, "_ASK_TORCH", asked)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert describe().gpus == ["3"] and describe_machine(all_gpus=True)["gpus"] == ["all"]


def in_directory(path: Path, token: str | None) -> DirectoryReport:
    return DirectoryReport(**describe_directory(str(path), token))


def test_a_directory_is_written_to_and_left_as_it_was(tmp_path):
    report = in_directory(tmp_path, None)
    assert report.error is None and report.sees_token is None and report.free_bytes and report.file_system
    assert not list(tmp_path.iterdir())


def test_a_file_that_comes_late_is_waited_for(tmp_path, monkeypatch):
    threading.Timer(0.3, (tmp_path / "late").touch).start()
    assert in_directory(tmp_path, "late").sees_token
    monkeypatch.setattr(machine, "_APPEARS_S", 0.2)
    assert in_directory(tmp_path, "none").sees_token is False


@pytest.mark.parametrize("place", ["missing", "file"])
def test_a_directory_that_cannot_be_written_is_named(tmp_path, place, monkeypatch):
    monkeypatch.setattr(machine, "_APPEARS_S", 0.0)
    (tmp_path / "file").touch()
    report = in_directory(tmp_path / place, "one")
    assert str(tmp_path / place) in (report.error or "") and not report.sees_token


def test_the_file_system_of_a_directory_is_that_of_the_deepest_mount():
    assert file_system_of(Path("/proc/self")) == "proc"
    named = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", "/dev/shm"], capture_output=True, text=True, check=True)
    assert file_system_of(Path("/dev/shm")) == named.stdout.split()[-1]


def test_a_question_that_hangs_is_abandoned():
    release = threading.Event()
    started = time.monotonic()
    with pytest.raises(NoAnswerError, match=r"0\.1 s"):
        answer_within(0.1, release.wait)
    assert time.monotonic() - started < 5 and any_abandoned()
    release.set()
    assert answer_within(5, lambda: 3) == 3
    with pytest.raises(KeyError):
        answer_within(5, lambda: {}["nothing"])
