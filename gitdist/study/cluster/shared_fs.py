"""Checks that the nodes of a cluster share the study's directory, which workers read and write at the same path."""

from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gitdist.errors import StudyError
from gitdist.spec import ResourcesSpec
from gitdist.study.cluster.connect import LivingNode, living_nodes
from gitdist.study.files.layout import StudyPaths

_LIMIT_S = 60.0  # for each node to answer


def check_shared(resources: ResourcesSpec, paths: StudyPaths) -> None:
    """Refuse a results directory that a node of the connected cluster does not share.

    Only nodes that are large enough for the study's processes are asked.

    Raises:
        StudyError: a node does not see it, or another one in its place.
    """
    nodes = living_nodes()
    if len(nodes) < 2 or paths.results.uri is not None:
        return
    shares = (resources.server, resources.trial, resources.training)
    asked = [node for node in nodes if any(node.offers.num_fitting(share) for share in shares)]
    identity = paths.identity.resolve()
    here = identity.read_bytes()
    task: Any = ray.remote(num_cpus=0, max_retries=0)(_content)
    answers = [task.options(scheduling_strategy=_on(node)).remote(identity) for node in asked]
    there, _ = ray.wait(answers, num_returns=len(answers), timeout=_LIMIT_S)
    for node, answer in zip(asked, answers, strict=True):
        if answer in there and not _is_same(answer, here):
            raise StudyError(
                f"--results must be a directory that all nodes see, but {paths.root} is another one on "
                f"{node.offers.name}; choose one on a file system that every node mounts at this path (NFS, Lustre, a "
                "FUSE mount of a bucket), or a URI on an object store"
            )


def _on(node: LivingNode) -> NodeAffinitySchedulingStrategy:
    return NodeAffinitySchedulingStrategy(node.id, soft=False)


def _content(file: Path) -> bytes | None:
    """Return what this node reads there; None if there is no such file."""
    try:
        return file.read_bytes()
    except OSError:
        return None


def _is_same(answer: Any, here: bytes) -> bool:
    try:
        return bool(ray.get(answer) == here)
    except RayError:  # the node is lost, so nothing is known
        return True
