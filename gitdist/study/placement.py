"""Where a study's servers and trials find room: arithmetic over the nodes of a cluster, without Ray.

Servers come first, each on the node that has the fewest of them; trials then go wherever there is room. A share of a
GPU below 1 lies on one card, a larger one takes whole cards, as Ray places them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gitdist.errors import StudyError
from gitdist.spec import ResourcesSpec, Share

Task = Literal["server", "trial", "training"]

_TINY = 1e-6  # of a CPU or a card: sums of fractions
_LISTED = 8  # nodes that a message names


@dataclass
class Node:
    """A node's name and what of it is free: CPUs, and of each card its free part."""

    name: str
    cpu: float
    cards: list[float] = field(default_factory=list)

    def has_room(self, share: Share) -> bool:
        """Tell whether one process with that share fits."""
        return self.cpu + _TINY >= share.cpu and len(self._cards_for(share.gpu)) >= _num_cards(share.gpu)

    def take(self, share: Share) -> None:
        """Give one process its share; there is room."""
        self.cpu -= share.cpu
        for card in self._cards_for(share.gpu)[: _num_cards(share.gpu)]:
            self.cards[card] -= min(share.gpu, 1.0)

    def told(self) -> str:
        """Return what is free, for reading."""
        return f"{self.cpu:g} CPU and {sum(self.cards):g} GPU"

    def _cards_for(self, gpu: float) -> list[int]:
        """Return the cards that can give their part, the fullest first."""
        fit = [card for card, free in enumerate(self.cards) if free + _TINY >= min(gpu, 1.0)]
        return sorted(fit, key=lambda card: self.cards[card])


@dataclass(frozen=True)
class Room:
    """What a study gets of a cluster: how many trials run at once, and a sentence about it."""

    max_concurrent: int
    note: str


@dataclass(frozen=True)
class _Packing:
    """The node of each server and of each trial that fits."""

    servers: list[str]
    trials: list[str]


def find_room(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int) -> Room:
    """Return how many trials run at once beside the servers.

    Args:
        nodes: of the cluster, with nothing on them.
        resources: what each process takes, and the bound on trials at once. On a cluster that adds nodes that bound
            holds, whatever fits now.
        num_servers: generator servers.

    Raises:
        StudyError: the servers and one trial do not fit; the message says what is missing where.
    """
    packing = _pack(nodes, resources, num_servers)
    bound = resources.max_concurrent
    if resources.autoscaling and bound != "auto":
        missing = len(packing.servers) < num_servers or len(packing.trials) < bound
        now = f"; now there is room for {len(packing.servers)} and {len(packing.trials)}, the rest waits for more nodes"
        return Room(bound, _at_once(bound, num_servers) + (now if missing else ""))
    if len(packing.servers) < num_servers:
        raise _no_room(nodes, resources, num_servers, "server")
    if not packing.trials:
        raise _no_room(nodes, resources, num_servers, "trial")
    at_once = len(packing.trials)
    return Room(at_once, _at_once(at_once, num_servers) + (_places(packing) if len(nodes) > 1 else ""))


def check_alone(nodes: Sequence[Node], resources: ResourcesSpec, task: Task, what: str) -> None:
    """Refuse a task, which runs while nothing else does, that no node ever has room for.

    Args:
        nodes: of the cluster, with nothing on them.
        resources: what each process takes; where the cluster adds nodes, nothing is refused.
        task: the field of ``resources`` that says what it takes.
        what: what it does: "train the generator".

    Raises:
        StudyError: it asks for more than any node has.
    """
    share: Share = getattr(resources, task)
    if not resources.autoscaling and not any(node.has_room(share) for node in nodes):
        raise StudyError(
            f"resources.{task} asks for {_told(share)} to {what}, but {_largest(nodes)}; lower resources.{task}"
        )


def _pack(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int) -> _Packing:
    free = [Node(node.name, node.cpu, list(node.cards)) for node in nodes]
    packing = _Packing([], [])
    while len(packing.servers) < num_servers:
        fit = [node for node in free if node.has_room(resources.server)]
        if not fit:
            return packing
        chosen = min(fit, key=lambda node: (packing.servers.count(node.name), -sum(node.cards), -node.cpu))
        chosen.take(resources.server)
        packing.servers.append(chosen.name)
    for node in free:
        while node.has_room(resources.trial) and len(packing.trials) != resources.max_concurrent:
            node.take(resources.trial)
            packing.trials.append(node.name)
    return packing


def _num_cards(gpu: float) -> int:
    return 0 if gpu == 0 else max(1, round(gpu))


def _no_room(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int, task: Task) -> StudyError:
    share: Share = getattr(resources, task)
    grows = "on a cluster that adds nodes, set resources.autoscaling: true and resources.max_concurrent"
    if not any(node.has_room(share) for node in nodes):
        return StudyError(
            f"resources.{task} asks for {_told(share)} on one node, but {_largest(nodes)}; lower resources.{task}, "
            f"or {grows}"
        )
    servers = f"{num_servers} server(s) of {_told(resources.server)}"
    have = ", ".join(f"{node.name} {node.told()}" for node in nodes[:_LISTED])
    more = f" and {len(nodes) - _LISTED} more" if len(nodes) > _LISTED else ""
    return StudyError(
        f"resources: {servers} and one trial of {_told(resources.trial)} must fit the cluster together, but its nodes "
        f"have {have}{more}; lower resources.servers or what each takes, or {grows}"
    )


def _largest(nodes: Sequence[Node]) -> str:
    if not nodes:
        return "the cluster has no node"
    most_cpu, most_gpu = (max(nodes, key=key) for key in (lambda node: node.cpu, lambda node: sum(node.cards)))
    if sum(most_gpu.cards) == sum(most_cpu.cards):
        return f"the largest node has {most_cpu.told()}"
    return f"the nodes with most have {most_cpu.told()}, and {most_gpu.told()}"


def _told(share: Share) -> str:
    return f"{share.cpu:g} CPU" + (f" and {share.gpu:g} GPU" if share.gpu else "")


def _at_once(num_trials: int, num_servers: int) -> str:
    beside = f"beside {num_servers} generator server(s)" if num_servers else "each with a generator of its own"
    return f"{num_trials} trial(s) at once, {beside}"


def _places(packing: _Packing) -> str:
    servers, trials = Counter(packing.servers), Counter(packing.trials)
    places = [
        f"{name} {servers[name]} server(s) and {trials[name]} trial(s)"
        for name in dict.fromkeys([*packing.servers, *packing.trials])
    ]
    return f": {', '.join(places)}"
