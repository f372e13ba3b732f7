"""Packs a study's servers and trials onto the nodes of a cluster: arithmetic, without Ray.

Servers are placed first, each on the node with the fewest servers and, among these, where it displaces the fewest
trials. Trials fill the rest. Ray may spread the servers differently, so the capacity is computed again once they run.
As in Ray, a GPU share below 1 is part of one card, the fullest with that much free, and a larger share takes whole
cards. ``gpu_shares`` chooses what ``gpu: auto`` means.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from gitdist.errors import StudyError
from gitdist.spec import ResourcesSpec, Share

Task = Literal["server", "trial", "training"]

_TOLERANCE = 1e-6  # of a CPU or a card, for rounding errors
_MAX_LISTED = 8  # nodes in a message


@dataclass
class Node:
    """A node's name and its free resources: CPUs, and the free part (0..1) of each card."""

    name: str
    cpu: float
    cards: list[float] = field(default_factory=list)

    def num_fitting(self, share: Share) -> int:
        """Return how many processes with that share fit."""
        by_cpu = int((self.cpu + _TOLERANCE) / share.cpu)
        if not share.num_gpus:
            return by_cpu
        part = min(share.num_gpus, 1.0)
        parts = sum(int((free + _TOLERANCE) / part) for free in self.cards)
        return min(by_cpu, parts // _num_cards(share.num_gpus))

    def allocate(self, share: Share) -> list[int]:
        """Allocate the share of one process, which must fit, and return its cards."""
        self.cpu -= share.cpu
        part = min(share.num_gpus, 1.0)
        fitting = [card for card, free in enumerate(self.cards) if free + _TOLERANCE >= part]
        chosen = sorted(fitting, key=lambda card: self.cards[card])[: _num_cards(share.num_gpus)]  # the fullest first
        for card in chosen:
            self.cards[card] -= part
        return chosen

    def without(self, share: Share) -> "Node":
        """Return the node after allocating the share of one process, which must fit."""
        rest = Node(self.name, self.cpu, list(self.cards))
        rest.allocate(share)
        return rest

    def describe(self) -> str:
        """Return the free resources as text."""
        return f"{self.cpu:g} CPU and {sum(self.cards):g} GPU"


@dataclass(frozen=True)
class Capacity:
    """How many trials of a study run at once, and a sentence about it."""

    max_concurrent: int
    note: str


@dataclass(frozen=True)
class Packing:
    """The node of each server and of each trial that fits, by name."""

    servers: list[str]
    trials: list[str]


def find_capacity(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int) -> Capacity:
    """Return how many trials can run at once beside the servers.

    Raises:
        StudyError: the servers and one trial do not fit; the message lists what the nodes have.
    """
    packing = pack(nodes, resources, num_servers)
    if not resources.autoscaling and len(packing.servers) < num_servers:
        raise _does_not_fit_error(nodes, resources, num_servers, "server")
    if not resources.autoscaling and not packing.trials:
        raise _does_not_fit_error(nodes, resources, num_servers, "trial")
    return _capacity(nodes, resources, num_servers, packing)


def capacity_beside(nodes: Sequence[Node], resources: ResourcesSpec, servers: Sequence[str]) -> Capacity:
    """Return how many trials run at once beside servers on the nodes ``servers``."""
    free = list(nodes)
    for name in servers:
        free = [node.without(resources.server) if node.name == name else node for node in free]
    packing = Packing(list(servers), _place_trials(free, resources))
    if not resources.autoscaling and not packing.trials:
        raise StudyError(
            f"resources: a trial of {_format(resources.trial)} fits no node beside the server(s) of "
            f"{_format(resources.server)} that Ray has placed on {', '.join(dict.fromkeys(servers))}; lower both until "
            "they fit on one node"
        )
    return _capacity(nodes, resources, len(servers), packing)


def check_fits_alone(nodes: Sequence[Node], resources: ResourcesSpec, task: Task, what: str) -> None:
    """Refuse a task that fits no node, even while nothing else runs.

    Raises:
        StudyError: it asks for more than any node has.
    """
    share: Share = getattr(resources, task)
    if not resources.autoscaling and not any(node.num_fitting(share) for node in nodes):
        raise StudyError(
            f"resources.{task} asks for {_format(share)} to {what}, but {_largest(nodes)}; lower resources.{task}"
        )


def pack(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int) -> Packing:
    """Place the servers and as many trials as fit; no trial if the servers do not all fit."""
    free = list(nodes)
    servers: list[str] = []
    while len(servers) < num_servers:
        fitting = [index for index, node in enumerate(free) if node.num_fitting(resources.server)]
        if not fitting:
            return Packing(servers, [])
        chosen = min(fitting, key=lambda index: _placement_cost(free[index], resources, servers))
        free[chosen] = free[chosen].without(resources.server)
        servers.append(free[chosen].name)
    return Packing(servers, _place_trials(free, resources))


def _placement_cost(node: Node, resources: ResourcesSpec, servers: list[str]) -> tuple[float, ...]:
    """Return a sort key of nodes for one more server: few servers, few displaced trials, much free capacity."""
    displaced = node.num_fitting(resources.trial) - node.without(resources.server).num_fitting(resources.trial)
    return servers.count(node.name), displaced, -sum(node.cards), -node.cpu


def _place_trials(free: Sequence[Node], resources: ResourcesSpec) -> list[str]:
    names = [node.name for node in free for _ in range(node.num_fitting(resources.trial))]
    return names if resources.max_concurrent == "auto" else names[: resources.max_concurrent]


def _capacity(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int, packing: Packing) -> Capacity:
    bound, num_trials = resources.max_concurrent, len(packing.trials)
    if resources.autoscaling and bound != "auto":
        missing = len(packing.servers) < num_servers or num_trials < bound
        now = f"; now {len(packing.servers)} and {num_trials} fit, the others wait for more nodes"
        return Capacity(bound, _concurrency_text(bound, num_servers) + (now if missing else ""))
    placement = _describe_placement(nodes, packing) if len(nodes) > 1 else ""
    return Capacity(num_trials, _concurrency_text(num_trials, num_servers) + placement)


def _num_cards(gpu: float) -> int:
    return 0 if gpu == 0 else max(1, round(gpu))


def _does_not_fit_error(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int, task: Task) -> StudyError:
    share: Share = getattr(resources, task)
    autoscaling = "on a cluster that adds nodes, set resources.autoscaling: true and resources.max_concurrent"
    if not any(node.num_fitting(share) for node in nodes):
        return StudyError(
            f"resources.{task} asks for {_format(share)} on one node, but {_largest(nodes)}; lower resources.{task}, "
            f"or {autoscaling}"
        )
    servers = f"{num_servers} server(s) of {_format(resources.server)}"
    have = ", ".join(f"{node.name} {node.describe()}" for node in nodes[:_MAX_LISTED])
    more = f" and {len(nodes) - _MAX_LISTED} more" if len(nodes) > _MAX_LISTED else ""
    return StudyError(
        f"resources: {servers} and one trial of {_format(resources.trial)} must fit the cluster together, but its "
        f"nodes have {have}{more}; lower resources.servers or the share of each, or {autoscaling}"
    )


def _largest(nodes: Sequence[Node]) -> str:
    if not nodes:
        return "the cluster has no node"
    most_cpu, most_gpu = (max(nodes, key=key) for key in (lambda node: node.cpu, lambda node: sum(node.cards)))
    if sum(most_gpu.cards) == sum(most_cpu.cards):
        return f"the largest node has {most_cpu.describe()}"
    return f"the largest nodes have {most_cpu.describe()}, and {most_gpu.describe()}"


def _format(share: Share) -> str:
    return f"{share.cpu:g} CPU" + (f" and {share.num_gpus:g} GPU" if share.num_gpus else "")


def _concurrency_text(num_trials: int, num_servers: int) -> str:
    beside = f"beside {num_servers} generator server(s)" if num_servers else "each with its own generator"
    return f"{num_trials} trial(s) at once, {beside}"


def _describe_placement(nodes: Sequence[Node], packing: Packing) -> str:
    servers, trials = Counter(packing.servers), Counter(packing.trials)
    parts = [
        f"{node.name} {servers[node.name]} server(s) and {trials[node.name]} trial(s)"
        for node in nodes
        if node.name in servers or node.name in trials
    ]
    return f": {', '.join(parts)}"
