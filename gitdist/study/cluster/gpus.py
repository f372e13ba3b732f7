"""Asks the nodes of a cluster which of the GPUs that they offer to Ray torch can use there."""

from collections.abc import Sequence

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gitdist.study.cluster.connect import AliveNode

_WAIT_S = 30.0  # a worker starts and imports torch; on a busy cluster it may have to wait for a card
_SMALLEST_SHARE = 0.0001  # of a card: what Ray counts


def ask_card_bytes(nodes: Sequence[AliveNode]) -> dict[str, int]:
    """Return by the name of each node with GPUs the memory of one of them in bytes; 0 if torch sees none there.

    A node that does not answer in time is left out.
    """
    task = ray.remote(num_cpus=0, num_gpus=_SMALLEST_SHARE, max_retries=0)(_card_bytes)
    references = {
        node.resources.name: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote()
        for node in nodes
        if node.resources.cards
    }
    ready, late = ray.wait(list(references.values()), num_returns=len(references), timeout=_WAIT_S)
    for reference in late:
        ray.cancel(reference)
    answers = {}
    for name, reference in references.items():
        if reference in ready:
            try:
                answers[name] = ray.get(reference)
            except RayError:  # of the node
                continue
    return answers


def _card_bytes() -> int:
    import torch

    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0
