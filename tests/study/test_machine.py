"""Ray on a machine with little: what it is told, and what is refused before it starts."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitdist.errors import RayUnavailableError
from gitdist.spec.study import ResourcesSpec
from gitdist.study import capacity
from gitdist.study.cluster.connect import connected, local_cpus
from gitdist.study.scheduling.packing import Node
from tests.commands import environment
from tests.test_limits import control_group


@pytest.fixture
def one_cpu() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("resources", "cpus"),
    [
        ({}, 2),  # a server and a trial of one CPU each
        ({"server": {"cpu": 0.25}, "trial": {"cpu": 0.25}}, 1),
        ({"server": {"cpu": 0.25}, "trial": {"cpu": 0.25}, "training": {"cpu": 16}}, 1),
        ({"trial": {"cpu": 3.5}}, 5),
    ],
)
def test_servers_and_trials_take_the_cpus_of_this_process(one_cpu: None, resources: dict, cpus: int) -> None:
    assert local_cpus(ResourcesSpec.model_validate(resources), 1) == cpus


def test_trials_do_not_take_the_cpus_that_ray_has_for_training_only() -> None:
    node = Node("here", 16.0, [1.0])
    assert capacity._bounded([node], 2) == [Node("here", 2, [1.0])]
    assert capacity._bounded([node], None) == [node]


def start_ray() -> None:
    with connected("local", ResourcesSpec(), 1):
        raise AssertionError("Ray was started")


@pytest.mark.parametrize("place", ["/tmp/" + "x" * 60, "/proc/missing", "/dev/null"])
def test_an_unusable_temporary_directory_is_named_with_the_remedy(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR"):
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv(name, place)
        with pytest.raises(RayUnavailableError, match=rf"{place}.*; set RAY_TMPDIR"):
            start_ray()


def test_an_unwritable_home_directory_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/proc/missing")
    with pytest.raises(RayUnavailableError, match="/proc/missing.*; set HOME"):
        start_ray()


START = "from tests.study.test_machine import start_ray; start_ray()"


def test_too_few_open_files_or_processes_are_refused_with_the_remedy() -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))

    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", START]
    done = subprocess.run(command, cwd=root, env=environment(), preexec_fn=limit, stderr=subprocess.PIPE, text=True)
    assert "128" in done.stderr and "ulimit -Hn" in done.stderr
    with control_group("pids", max="200") as group:
        joining = f"open({str(group / 'cgroup.procs')!r}, 'w').write('0')\n"
        command = [sys.executable, "-c", joining + START]
        done = subprocess.run(command, cwd=root, env=environment(), stderr=subprocess.PIPE, text=True)
    assert "processes" in done.stderr and "ulimit -u" in done.stderr
