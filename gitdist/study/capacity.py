"""Computes how many trials run at once on the connected cluster, before and after the servers are placed."""

import shutil
from collections.abc import Sequence
from dataclasses import replace

from gitdist.limits import temporary_directory
from gitdist.study.cluster.connect import alive_nodes, cluster_nodes
from gitdist.study.resources.stream import StreamResources
from gitdist.study.running_study import RunningStudy
from gitdist.study.scheduling.packing import Capacity, Node, capacity_beside, check_fits_alone, find_capacity


def estimate_capacity(running: RunningStudy, num_servers: int, cpus: int | None) -> Capacity:
    """Return and log how many trials fit on the cluster, before anything runs; ``cpus`` is what ``connected`` gave."""
    nodes, resources = _bounded(cluster_nodes(), cpus), running.spec.resources
    capacity = find_capacity(nodes, resources, num_servers)
    if not num_servers and running.dataset.nuisance == "none":
        check_fits_alone(nodes, resources, "server", "transform the images that eKLD is measured on")
    running.display.log(capacity.note)
    if cpus is not None and (note := _shared_memory_note()):
        running.display.log(note)
    return capacity


def measure_capacity(running: RunningStudy, resources: StreamResources, expected: Capacity, cpus: int | None) -> int:
    """Return how many trials run at once beside the running servers; log it if it differs from ``expected``."""
    nodes, servers = alive_nodes(), resources.server_nodes()
    if not servers:
        return expected.max_concurrent
    names = [node.resources.name for server in servers for node in nodes if node.id == server]
    capacity = capacity_beside(_bounded([node.resources for node in nodes], cpus), running.spec.resources, names)
    if capacity != expected:
        running.display.log(capacity.note)
    return capacity.max_concurrent


def _shared_memory_note() -> str | None:
    """Return a line if Ray on this machine keeps its objects on disk because /dev/shm has too little space."""
    free, size = shutil.disk_usage("/dev/shm").free, alive_nodes()[0].object_store_bytes
    if free >= size:
        return None
    return (
        f"/dev/shm has {free / 1e9:.1f} GB free, less than Ray's object store of {size / 1e9:.1f} GB, which is in "
        f"{temporary_directory()} instead and slower; free or enlarge /dev/shm (docker run --shm-size=8g)"
    )


def _bounded(nodes: Sequence[Node], cpus: int | None) -> list[Node]:
    """Return nodes of at most ``cpus`` each: Ray on this machine has more if training the generator asks for more."""
    return [node if cpus is None else replace(node, cpu=min(node.cpu, cpus)) for node in nodes]
