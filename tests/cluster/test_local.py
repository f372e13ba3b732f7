import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.cluster.templates import CLUSTER

pytestmark = pytest.mark.ray
SCRIPT = str(CLUSTER / "local.sh")
JOIN = """
import json, ray
ray.init(log_to_driver=False, logging_level="error")
work = ray.remote(num_gpus=1)(ray.util.get_node_ip_address).remote()
nodes = [[node["NodeManagerAddress"], node["Resources"]["CPU"], node["Resources"]["GPU"]] for node in ray.nodes()]
print(json.dumps([sorted(nodes), ray.get(work)]))
"""


@contextmanager
def environment_of_own() -> Iterator[dict[str, str]]:
    """An environment whose local cluster is this test's own; what runs of it is ended."""
    folder = Path(tempfile.mkdtemp(prefix="gl-", dir="/tmp"))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_A")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = inherited | {"GITDIST_LOCAL": str(folder), "PATH": path}
    try:
        yield environment
    finally:
        subprocess.run([SCRIPT, "stop"], env=environment, check=True)
        shutil.rmtree(folder)


@pytest.fixture
def environment() -> Iterator[dict[str, str]]:
    with environment_of_own() as environment:
        yield environment


def local(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True)


def exports(text: str) -> dict[str, str]:
    """The variables of the line that the script prints for ``eval``."""
    (line,) = text.splitlines()
    words = line.removeprefix("export ").split(" ")
    return {name: value.strip("'") for name, value in (word.split("=") for word in words)}


def members(folder: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("GITDIST_LOCAL_CLUSTER") == folder:
                found.append(process)
        except psutil.Error:
            continue
    return found


def orphan_agents(folder: str) -> list[psutil.Process]:
    """Kill the second node's raylet and return its agents, stopped so that they do not notice."""
    raylets = [process for process in members(folder) if process.name() == "raylet"]
    (raylet,) = [process for process in raylets if any(f"{folder}/3" in part for part in process.cmdline())]
    agents = raylet.children()
    for agent in agents:
        agent.suspend()
    raylet.kill()
    return agents


def python(code: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, text=True, **pipes)


@pytest.mark.slow
def test_two_nodes_start_open_to_the_token_alone_and_end_without_other_rays(environment: dict[str, str]) -> None:
    folder = Path(environment["GITDIST_LOCAL"])
    bystander = subprocess.Popen(["raylet", "600"], executable=shutil.which("sleep"))  # `ray stop` would end it
    try:
        started = local(environment, "start", "--cpus", "1", "--gpus", "1")
        assert started.returncode == 0, started.stderr
        given = exports(started.stdout)
        token = Path(given["RAY_AUTH_TOKEN_PATH"])
        assert given["RAY_AUTH_MODE"] == "token" and token.parent == folder
        assert token.stat().st_mode & 0o077 == 0 and folder.stat().st_mode & 0o077 == 0 and len(token.read_text()) == 64

        joining = python(JOIN, environment | given)
        once = {"RAY_NUM_REDIS_GET_RETRIES": "1"}  # a second's try, not twenty
        refused = [
            python(JOIN, environment | given | once | {"RAY_AUTH_MODE": "disabled"}),
            python(JOIN, environment | given | once | {"RAY_AUTH_TOKEN": "another"}),  # goes before the file
        ]
        again = local(environment, "start")
        assert again.returncode == 2 and "runs in" in again.stderr
        nodes, worked_at = json.loads(joining.communicate()[0])
        assert nodes == [["127.0.0.2", 1.0, 1.0], ["127.0.0.3", 1.0, 1.0]] and worked_at in ("127.0.0.2", "127.0.0.3")
        for process in refused:
            assert "Failed to connect" in process.communicate()[1] and process.returncode != 0

        assert len(members(str(folder))) > 3
        agents = orphan_agents(str(folder))
        assert agents and local(environment, "stop").returncode == 0
        assert members(str(folder)) == [] and not token.exists()
        assert [agent for agent in agents if agent.is_running() and agent.status() != psutil.STATUS_ZOMBIE] == []
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("arguments", [[], ["start", "--cpus"], ["start", "--cpus", "two"], ["stop", "all"], ["begin"]])
def test_a_wrong_call_is_refused(environment: dict[str, str], arguments: list[str]) -> None:
    done = local(environment, *arguments)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")


def test_a_folder_too_deep_for_rays_sockets_is_refused(environment: dict[str, str]) -> None:
    done = local(environment | {"GITDIST_LOCAL": "/tmp/" + "x" * 32}, "start")
    assert done.returncode == 2 and "at most 36 characters" in done.stderr


def test_where_ray_cannot_start_nothing_is_left(environment: dict[str, str]) -> None:
    folder = Path(environment["GITDIST_LOCAL"])
    programs = folder / "programs"
    programs.mkdir()
    (programs / "ray").write_text("#!/bin/sh\nexit 3\n")
    (programs / "ray").chmod(0o755)
    done = local(environment | {"PATH": f"{programs}:{environment['PATH']}"}, "start")
    assert done.returncode != 0 and done.stdout == "" and f"see {folder}/start.log" in done.stderr
    assert members(str(folder)) == [] and not (folder / "token").exists()
