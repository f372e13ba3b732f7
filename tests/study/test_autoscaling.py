"""A study on a cluster without room for it that adds nodes by itself: the autoscaler of Ray, nodes of this machine."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from tests.commands import environment
from tests.study.small_study import check_whole, stocked
from tests.waiting import until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

TYPES = {
    "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
    "gpu": {"resources": {"CPU": 2, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
}
CONFIG: dict[str, Any] = {
    "cluster_name": "grows",
    "max_workers": 2,
    "idle_timeout_minutes": 5,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "foreground_node_launch": True,
    },
    "upscaling_speed": 100.0,
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
    **{f"{whose}setup_commands": [] for whose in ("", "head_", "worker_")},
    **{f"{whose}_start_ray_commands": [] for whose in ("head", "worker")},
    "file_mounts_sync_continuously": False,
    "head_node_type": "ray.head.default",
    "available_node_types": TYPES,
}
ON_GPUS = (
    "resources.servers=2",
    "resources.server={cpu: 0.25, gpu: 0.25}",
    "resources.trial={cpu: 0.25, gpu: 0.5}",
    "resources.training={cpu: 1, gpu: 1}",
    "resources.max_concurrent=3",
)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Where a cluster of a head without GPUs is, to which the autoscaler adds up to two nodes with one each."""
    config, folder = tmp_path / "cluster.json", tempfile.mkdtemp(prefix="ga-", dir="/tmp")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"{ray.util.get_node_ip_address()}:{port}"
    config.write_text(json.dumps({**CONFIG, "provider": {**CONFIG["provider"], "gcs_address": where}}))
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", f"--port={port}", "--num-cpus=1"]
    command += ["--include-dashboard=false", f"--temp-dir={folder}", f"--autoscaling-config={config}"]
    head = subprocess.Popen(
        command,
        env=environment(AUTOSCALER_UPDATE_INTERVAL_S="1", RAY_FAKE_CLUSTER="1", RAY_AUTH_MODE="disabled"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: is_open(port), limit_s=60)
        yield f"127.0.0.1:{port}"
    finally:
        everything = [head, *psutil.Process(head.pid).children(recursive=True)]
        for process in everything:
            os.kill(process.pid, signal.SIGKILL)
        head.wait()
        shutil.rmtree(folder, ignore_errors=True)


def is_open(port: int) -> bool:
    with closing(socket.socket()) as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def test_what_has_no_room_yet_waits_for_the_nodes_that_come(tmp_path, undisturbed, address):
    small = stocked(tmp_path / "refused", undisturbed, *ON_GPUS)
    refused = small.run("--address", address)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "resources.server asks for 0.25 CPU and 0.25 GPU on one node" in refused.stderr
    assert "set resources.autoscaling: true" in refused.stderr

    study = stocked(tmp_path / "grows", undisturbed, *ON_GPUS, "resources.autoscaling=true")
    done = study.run("--address", address)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "now there is room for 0 and 0, the rest waits for more nodes" in done.stdout
    check_whole(study, 3)
    assert study.rows() == undisturbed.rows()
