"""A results directory that was moved, copied, or can only be read: every command on one small study, really run."""

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.commands import call, environment, gitdist
from tests.disks import read_only
from tests.study.small_study import SmallStudy
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]


@pytest.fixture
def copy(moved_study, tmp_path) -> SmallStudy:
    """A copy of a study that is gone from where it was run: what its database says of that place is untrue."""
    copied = replace(moved_study, results=tmp_path / "copy")
    shutil.copytree(moved_study.results, copied.results)
    return copied


def on(study: SmallStudy, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(gitdist(command, study.name, "--results", str(study.results), *arguments))


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def locations(study: SmallStudy) -> list[str]:
    with closing(sqlite3.connect(f"file:{study.results}/mlflow.db?mode=ro", uri=True)) as database:
        return [location for (location,) in database.execute("SELECT artifact_uri FROM runs")]


def artifacts_from_ui(study: SmallStudy, working: Path) -> dict[str, bytes]:
    """Return the artifacts of all runs as a browser gets them from ``gitdist ui``, by run and name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    working.mkdir()
    server = subprocess.Popen(
        gitdist("ui", "--results", str(study.results), "--port", str(port)),
        cwd=working,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        base, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120

        def ask(path: str, body: dict[str, Any] | None = None) -> bytes:
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(base + path, data, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.read()

        while True:
            try:
                ask("/health")
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline
                time.sleep(0.2)
        experiments = json.loads(ask("/api/2.0/mlflow/experiments/search", {"max_results": 9}))["experiments"]
        ids = [experiment["experiment_id"] for experiment in experiments]
        runs = json.loads(ask("/api/2.0/mlflow/runs/search", {"experiment_ids": ids, "max_results": 99}))["runs"]
        found = {}
        for run in runs:
            number = run["info"]["run_id"]
            listed = json.loads(ask(f"/api/2.0/mlflow/artifacts/list?run_id={number}")).get("files", [])
            for file in (file["path"] for file in listed if not file["is_dir"]):
                found[f"{run['info']['run_name']}/{file}"] = ask(f"/get-artifact?path={file}&run_uuid={number}")
            ask("/api/2.0/mlflow/runs/set-tag", {"run_id": number, "key": "seen", "value": "yes"})
        return found
    finally:
        server.send_signal(signal.SIGTERM)  # which MLflow's server does not receive
        assert server.wait(60) == 0
        until(lambda: not is_open(port))
        assert list(working.iterdir()) == []


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def check_artifacts(study: SmallStudy, found: dict[str, bytes]) -> None:
    assert found["trial 0000/rows.jsonl"] == (study.directory / "trials/0000/rows.jsonl").read_bytes()
    assert found["small/summary.json"] == (study.directory / "summary.json").read_bytes()
    assert found["generator/samples.png"] == (study.directory / "samples.png").read_bytes()


def test_a_moved_directory_is_all_that_its_commands_write(copy, moved_study, tmp_path):
    before = contents(moved_study.results)
    for command, *arguments in (["status"], ["report"], ["sync"], ["resume"]):
        done = on(copy, command, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "logged to 1 run of MLflow" in on(copy, "report").stdout
    done = on(copy, "resume", "--set", "search.total=3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert contents(moved_study.results) == before and not moved_study.results.with_name("former").exists()
    assert {Path(place.removeprefix("file://")).is_relative_to(copy.results) for place in locations(copy)} == {True}
    assert [run.info.status for run in copy.runs()] == ["FINISHED"] * 6
    check_artifacts(copy, artifacts_from_ui(copy, tmp_path / "working"))


def test_a_directory_that_can_only_be_read_is_shown(copy, tmp_path):
    before = contents(copy.results)
    with read_only(copy.results):
        assert on(copy, "status").returncode == 0
        done = on(copy, "report", "--out", str(tmp_path / "report"))
        assert done.returncode == 0 and (tmp_path / "report" / "index.html").exists(), done.stdout + done.stderr
        (told,) = [line for line in done.stdout.splitlines() if "not in MLflow" in line]
        assert str(copy.results) in told and "Read-only" in told
        check_artifacts(copy, artifacts_from_ui(copy, tmp_path / "working"))
    assert contents(copy.results) == before


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (["run"], "--results"),
        (["resume"], "--results"),
        (["resume", "--set", "search.total=3"], "--results"),
        (["retry", "--failed"], "--results"),
        (["sync"], "--results"),
        (["report"], "--out"),
    ],
    ids=" ".join,
)
def test_what_must_write_says_in_one_line_that_it_cannot(copy, tmp_path, command, remedy):
    file = tmp_path / "small.yaml"
    shutil.copy(copy.directory / "study.yaml", file)
    before = contents(copy.results)
    with read_only(copy.results):
        name, *arguments = command
        study = str(file) if name == "run" else copy.name
        done = call(gitdist(name, study, "--results", str(copy.results), *arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert str(copy.results) in line and "Read-only file system" in line and remedy in line
    assert contents(copy.results) == before
