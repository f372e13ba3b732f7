"""Checks that the nodes of a cluster share the study's directory, which workers read and write at the same path."""

from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gitdist.disk import real_path
from gitdist.errors import StudyError
from gitdist.spec import ResourcesSpec
from gitdist.study.cluster.connect import AliveNode, alive_nodes
from gitdist.study.files.layout import StudyPaths

_TIMEOUT_S = 60.0  # for each node to answer


def check_shared(resources: ResourcesSpec, paths: StudyPaths) -> None:
    """Refuse a results directory that a node of the connected cluster does not share.

    Only nodes that are large enough for the study's processes are checked.

    Raises:
        StudyError: a node does not have it, or has a different directory at its path.
    """
    nodes = alive_nodes()
    if len(nodes) < 2 or paths.results.uri is not None:
        return
    shares = (resources.server, resources.trial, resources.training)
    checked = [node for node in nodes if any(node.resources.num_fitting(share) for share in shares)]
    identity = real_path(paths.identity)
    own_identity = identity.read_bytes()
    task: Any = ray.remote(num_cpus=0, max_retries=0)(_read_or_none)
    answers = [task.options(scheduling_strategy=_pin_to(node)).remote(identity) for node in checked]
    ready, _ = ray.wait(answers, num_returns=len(answers), timeout=_TIMEOUT_S)
    for node, answer in zip(checked, answers, strict=True):
        if answer in ready and not _is_same(answer, own_identity):
            raise StudyError(
                f"the results directory must be one that all nodes see, but {paths.root} is another one on "
                f"{node.resources.name}; choose one on a file system that every node mounts at this path (NFS, Lustre, "
                "a FUSE mount of a bucket), or a URI on an object store"
            )


def _pin_to(node: AliveNode) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def _read_or_none(file: Path) -> bytes | None:
    """Return the file's content on this node; None if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return None


def _is_same(answer: Any, own_identity: bytes) -> bool:
    try:
        return bool(ray.get(answer) == own_identity)
    except RayError:  # the node is lost: its answer is unknown
        return True
