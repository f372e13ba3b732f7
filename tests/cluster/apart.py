"""A node of a cluster that is another world: in a mount namespace, where a directory is a disk of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import until


@contextmanager
def node_apart(cluster: Any, disk: Path, python_path: Path, *options: str) -> Iterator[None]:
    """Add a node to a cluster of one; of ``disk`` it sees a small one of its own, with an empty ``results`` on it.

    Args:
        cluster: a ``ray.cluster_utils.Cluster``.
        disk: a directory.
        python_path: where the node's gitdist is.
        options: of ``ray start``.
    """
    if subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode:
        pytest.skip("mount namespaces are not allowed here")
    start = f'mount -t tmpfs -o size=10m tmpfs "{disk}" && mkdir "{disk}/results" && exec "$@"'
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--address", cluster.address, "--block", *options]
    command = ["unshare", "--mount", "sh", "-c", start, "sh", *ray]
    environment = {**os.environ, "PYTHONPATH": str(python_path)}
    with open(disk.with_suffix(".log"), "w") as file:
        node = subprocess.Popen(command, env=environment, stdout=file, stderr=file)
    try:
        gcs = cluster.head_node.get_gcs_client()
        until(lambda: len(gcs.get_all_node_info()) == 2, pause_s=0.2)
        yield
    finally:
        node.terminate()
        node.wait(30)
