"""Computes how many trials run at once on the connected cluster, before and after the servers are placed."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace

from gitdist.limits import temporary_directory
from gitdist.spec import ResourcesSpec
from gitdist.study.cluster.connect import AliveNode, alive_nodes, cluster_nodes
from gitdist.study.cluster.gpus import ask_card_bytes
from gitdist.study.cluster.shared_fs import check_shared
from gitdist.study.resources.stream import StreamResources
from gitdist.study.running_study import RunningStudy
from gitdist.study.scheduling.gpu_shares import (
    describe_gpus,
    describe_idle,
    processes_per_card,
    share_gpus,
    use_of_cards,
)
from gitdist.study.scheduling.packing import Capacity, Node, capacity_beside, check_fits_alone, find_capacity, pack


def join_cluster(running: RunningStudy, num_servers: int, cpus: int | None) -> RunningStudy:
    """Return the study with a number for each ``gpu: auto``; refuse results that the cluster's nodes do not share."""
    nodes = alive_nodes()
    card_bytes = _smallest_card(nodes, running.display.log) if _may_use_gpus(running.spec.resources) else None
    max_per_card = processes_per_card(card_bytes, max(running.dataset.image_shape[1:]))
    offered = _bounded([node.resources for node in nodes], cpus)
    resources = share_gpus(offered, running.spec.resources, num_servers, _num_open(running), max_per_card)
    check_shared(resources, running.study.paths)
    return running.with_resources(resources)


def estimate_capacity(running: RunningStudy, num_servers: int, cpus: int | None) -> Capacity:
    """Return and log how many trials fit on the cluster, before anything runs; ``cpus`` is what ``connected`` gave."""
    nodes, resources = _bounded(cluster_nodes(), cpus), running.spec.resources
    capacity = find_capacity(nodes, resources, num_servers)
    if not num_servers and running.dataset.nuisance == "none":
        check_fits_alone(nodes, resources, "server", "transform the images that eKLD is measured on")
    running.display.log(capacity.note)
    _log_gpus(running, nodes, pack(nodes, resources, num_servers).servers)
    if cpus is not None and (note := _shared_memory_note()):
        running.display.log(note)
    return capacity


def measure_capacity(running: RunningStudy, resources: StreamResources, expected: Capacity, cpus: int | None) -> int:
    """Return how many trials run at once beside the running servers; log it if it differs from ``expected``."""
    nodes, servers = alive_nodes(), resources.server_nodes()
    if not servers:
        return expected.max_concurrent
    names = [node.resources.name for server in servers for node in nodes if node.id == server]
    offered = _bounded([node.resources for node in nodes], cpus)
    capacity = capacity_beside(offered, running.spec.resources, names)
    if capacity != expected:
        running.display.log(capacity.note)
        _log_gpus(running, offered, names)
    return capacity.max_concurrent


def _log_gpus(running: RunningStudy, nodes: Sequence[Node], servers: Sequence[str]) -> None:
    """Log what runs on each GPU, and those on which nothing does."""
    resources, num_trials = running.spec.resources, _num_open(running)
    cards = use_of_cards(nodes, resources, servers, num_trials)
    if not cards:
        return
    running.display.log(describe_gpus(resources, cards, sharing=bool(servers)))
    if idle := describe_idle(resources, cards, num_trials):
        running.display.log("; ".join(idle))


def _num_open(running: RunningStudy) -> int:
    """Return how many trials are left to train, with the baseline; at least one."""
    return max(1, running.study.ledger.num_open() + (not running.study.is_baseline_ended()))


def _may_use_gpus(resources: ResourcesSpec) -> bool:
    return any(share.gpu for share in (resources.server, resources.trial, resources.training))


def _smallest_card(nodes: Sequence[AliveNode], log: Callable[[str], None]) -> int | None:
    """Return the memory of the smallest GPU in bytes, None if unknown; log which nodes have GPUs that torch lacks."""
    known = ask_card_bytes(nodes) if any(node.resources.cards for node in nodes) else {}
    for name in (name for name, num_bytes in known.items() if not num_bytes):
        log(
            f"{name} offers GPUs to Ray, but torch sees none there: processes with a share of them run on its CPUs; "
            "install torch's CUDA build and the driver there, or start its Ray with --num-gpus=0"
        )
    return min(filter(None, known.values()), default=None)


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
