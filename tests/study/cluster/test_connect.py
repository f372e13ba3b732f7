import socket
import subprocess
import sys
import threading

import pytest
from ray.core.generated import common_pb2

from gitdist.errors import RayUnavailableError
from gitdist.study.cluster import watchdog
from gitdist.study.cluster.connect import _SearchPath, check_address
from gitdist.study.cluster.watchdog import watched
from tests.commands import environment
from tests.study.small_study import SmallStudy


@pytest.mark.parametrize("given", [True, False])
def test_ray_client_is_refused_with_what_to_do_instead(monkeypatch, given):
    address = "ray://127.0.0.1:10001"
    monkeypatch.setenv("RAY_ADDRESS", "" if given else address)
    with pytest.raises(RayUnavailableError, match=f"'{address}'") as caught:
        check_address(address if given else None)
    assert caught.value.remedy == "submit"


def test_workers_search_the_directories_that_this_process_searches(monkeypatch, tmp_path):
    searched, working = tmp_path / "searched", tmp_path / "working"
    monkeypatch.setattr(sys, "path", [str(searched), *(path for path in sys.path if path)])
    config, message = _SearchPath(), common_pb2.JobConfig()
    config._py_driver_sys_path += [str(working), str(searched)]  # as Ray does
    message.ParseFromString(config._serialize())
    assert list(message.py_driver_sys_path) == [str(searched)]


def listening(port: int = 0) -> socket.socket:
    return socket.create_server(("127.0.0.1", port), backlog=100)


def test_a_head_that_comes_back_lives_and_one_that_stays_silent_is_dead(monkeypatch):
    monkeypatch.setattr(watchdog, "_CHECK_S", 0.05)
    monkeypatch.setattr(watchdog, "_MAX_SILENCE_S", 1.0)
    dead = threading.Event()
    head = listening()
    port = head.getsockname()[1]
    with watched(lambda cause: dead.set(), f"127.0.0.1:{port}"):
        assert not dead.wait(1.5)
        head.close()
        assert not dead.wait(0.4)
        with listening(port):
            assert not dead.wait(1.5)
        assert dead.wait(20)


def test_a_head_that_is_left_is_not_missed(monkeypatch):
    monkeypatch.setattr(watchdog, "_CHECK_S", 0.05)
    monkeypatch.setattr(watchdog, "_MAX_SILENCE_S", 0.2)
    dead = threading.Event()
    with listening() as head, watched(lambda cause: dead.set(), f"127.0.0.1:{head.getsockname()[1]}"):
        pass
    assert not dead.wait(1.0)


@pytest.mark.ray
def test_a_cluster_without_tokens_is_not_joined_with_one(ray_head, tmp_path):
    command = SmallStudy(tmp_path).command("--address", ray_head)
    env = environment(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="a" * 64)
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    error = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and f"'{ray_head}'" in error and "RAY_AUTH_MODE=disabled" in error
