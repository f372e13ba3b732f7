"""This machine asked for real."""

import importlib.metadata
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import ray

import gitdist
from gitdist.doctor import machine
from gitdist.doctor.machine import Examiner, describe, examine_directory, remove_token, sees_token, type_of_disk
from gitdist.doctor.patience import OutOfPatience, any_left, within


def test_a_machine_tells_its_versions_memory_and_watched_ports(monkeypatch, tmp_path):
    token = tmp_path / "token"
    token.write_text("secret")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        report = describe({port: "MLflow server"})
    assert report.versions["gitdist"] == gitdist.__version__ and report.versions["ray"] == ray.__version__
    assert report.versions["torch"] == importlib.metadata.version("torch")
    assert report.torch_trouble is None and len(report.code) == 10
    assert report.shared_memory_bytes == os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize
    assert "127.0.0.1" in report.addresses and ("127.0.0.1", port, "MLflow server") in report.listening
    assert (report.token_file, report.token_used) == (str(token), True)


def test_a_torch_that_fails_or_hangs_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(machine, "_ASK_TORCH", "import no_torch_here")
    assert describe({}).torch_trouble == "ModuleNotFoundError: No module named 'no_torch_here'"
    monkeypatch.setattr(machine, "_ASK_TORCH", "import time; time.sleep(60)")
    monkeypatch.setattr(machine, "_TORCH_S", 0.5)
    assert "0.5 s" in describe({}).torch_trouble


def test_cards_hidden_from_this_process_are_hidden_from_its_study_and_a_worker_tells_its_nodes(monkeypatch):
    asked = "import json, os; print(json.dumps({'cards': os.environ.get('CUDA_VISIBLE_DEVICES', 'all').split(',')}))"
    monkeypatch.setattr(machine, "_ASK_TORCH", asked)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    assert describe({}).cards == ["3"] and Examiner().describe({})["cards"] == ["all"]


def test_who_reads_a_file_depends_on_the_directories_above_it_too(tmp_path):
    closed = tmp_path / "closed"
    closed.mkdir()
    token = closed / "token"
    token.write_text("secret")
    opened = [path for path in (tmp_path, *tmp_path.parents) if path.stat().st_mode & 0o011 != 0o011]
    modes = {path: path.stat().st_mode for path in opened}
    try:
        for path in opened:
            path.chmod(0o755)
        for mode, above, readers in (
            (0o644, 0o755, "everybody"),
            (0o640, 0o750, "its group"),
            (0o600, 0o755, ""),
            (0o644, 0o700, ""),
        ):
            token.chmod(mode)
            closed.chmod(above)
            assert machine._readers(token) == readers, oct(mode)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def test_tokens_in_a_directory_are_left_seen_and_removed(tmp_path):
    report = examine_directory(tmp_path, None, "one")
    assert report.trouble is None and report.sees_token is None and report.free_bytes > 0 and report.disk
    assert examine_directory(tmp_path, "one", "two").sees_token and sees_token(tmp_path, "two")
    for token in ("one", "two", "two"):
        remove_token(tmp_path, token)
    assert not list(tmp_path.iterdir())


def test_a_token_that_comes_late_is_waited_for_and_another_ones_is_not_taken(tmp_path, monkeypatch):
    threading.Timer(0.3, lambda: (tmp_path / "late").write_text("late")).start()
    assert sees_token(tmp_path, "late")
    monkeypatch.setattr(machine, "_APPEARS_S", 0.2)
    (tmp_path / "one").write_text("another")
    assert not sees_token(tmp_path, "one")


@pytest.mark.parametrize("place", ["missing", "file"])
def test_a_directory_that_cannot_be_written_is_told(tmp_path, place, monkeypatch):
    monkeypatch.setattr(machine, "_APPEARS_S", 0.0)
    (tmp_path / "file").touch()
    report = examine_directory(tmp_path / place, "one", "two")
    assert str(tmp_path / place) in report.trouble and not report.sees_token


def test_the_disk_of_a_directory_is_that_of_the_deepest_mount():
    assert type_of_disk(Path("/proc/self")) == "proc"
    named = subprocess.run(["findmnt", "-no", "FSTYPE", "-T", "/dev/shm"], capture_output=True, text=True, check=True)
    assert type_of_disk(Path("/dev/shm")) == named.stdout.split()[-1]


def test_a_probe_that_hangs_is_left_to_itself():
    release = threading.Event()
    started = time.monotonic()
    with pytest.raises(OutOfPatience, match=r"0\.1 s"):
        within(0.1, release.wait)
    assert time.monotonic() - started < 5 and any_left()
    release.set()
    assert within(5, lambda: 3) == 3
    with pytest.raises(KeyError):
        within(5, lambda: {}["nothing"])
