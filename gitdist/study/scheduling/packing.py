"""Where a study's servers and trials find room: arithmetic over the nodes of a cluster, without Ray.

Servers come first, each on the node that has the fewest of them, and of those on the one that is the least loss for
trials; trials then go wherever there is room. That is how they can lie: Ray spreads servers in a way of its own, so the
room is counted again once they have their nodes. A share of a GPU below 1 lies on one card, a larger one takes whole
cards, as Ray places them.
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

    def room_for(self, share: Share) -> int:
        """Return how many processes with that share fit."""
        by_cpu = int((self.cpu + _TINY) / share.cpu)
        if not share.gpu:
            return by_cpu
        part = min(share.gpu, 1.0)
        parts = sum(int((free + _TINY) / part) for free in self.cards)
        return min(by_cpu, parts // _num_cards(share.gpu))

    def take(self, share: Share) -> None:
        """Give one process its share; there is room."""
        self.cpu -= share.cpu
        part = min(share.gpu, 1.0)
        fit = [card for card, free in enumerate(self.cards) if free + _TINY >= part]
        for card in sorted(fit, key=lambda card: self.cards[card])[: _num_cards(share.gpu)]:  # the fullest first
            self.cards[card] -= part

    def without(self, share: Share) -> "Node":
        """Return the node as it is when one process has taken its share; there is room."""
        rest = Node(self.name, self.cpu, list(self.cards))
        rest.take(share)
        return rest

    def told(self) -> str:
        """Return what is free, for reading."""
        return f"{self.cpu:g} CPU and {sum(self.cards):g} GPU"


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


def find_capacity(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int) -> Room:
    """Return how many trials can run at once beside the servers.

    Args:
        nodes: of the cluster, with nothing on them.
        resources: what each process takes, and the bound on trials at once. On a cluster that adds nodes that bound
            holds, whatever fits now.
        num_servers: generator servers.

    Raises:
        StudyError: the servers and one trial do not fit; the message says what is missing where.
    """
    packing = _pack(nodes, resources, num_servers)
    if not resources.autoscaling and len(packing.servers) < num_servers:
        raise _no_room(nodes, resources, num_servers, "server")
    if not resources.autoscaling and not packing.trials:
        raise _no_room(nodes, resources, num_servers, "trial")
    return _room(nodes, resources, num_servers, packing)


def capacity_beside(nodes: Sequence[Node], resources: ResourcesSpec, servers: Sequence[str]) -> Room:
    """Return how many trials run at once beside servers that have their nodes.

    Args:
        nodes: as for ``find_capacity``.
        resources: the same.
        servers: the name of each server's node.

    Raises:
        StudyError: they leave no room for a trial.
    """
    free = list(nodes)
    for name in servers:
        free = [node.without(resources.server) if node.name == name else node for node in free]
    packing = _Packing(list(servers), _place_trials(free, resources))
    if not resources.autoscaling and not packing.trials:
        raise StudyError(
            f"resources: a trial takes {_told(resources.trial)}, for which no node has room beside the server(s) of "
            f"{_told(resources.server)} that Ray has put on {', '.join(dict.fromkeys(servers))}; lower what each takes "
            "until both fit any node that has room for a trial"
        )
    return _room(nodes, resources, len(servers), packing)


def check_fits_alone(nodes: Sequence[Node], resources: ResourcesSpec, task: Task, what: str) -> None:
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
    if not resources.autoscaling and not any(node.room_for(share) for node in nodes):
        raise StudyError(
            f"resources.{task} asks for {_told(share)} to {what}, but {_largest(nodes)}; lower resources.{task}"
        )


def _pack(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int) -> _Packing:
    free = list(nodes)
    servers: list[str] = []
    while len(servers) < num_servers:
        fit = [place for place, node in enumerate(free) if node.room_for(resources.server)]
        if not fit:
            return _Packing(servers, [])
        chosen = min(fit, key=lambda place: _dearness(free[place], resources, servers))
        free[chosen] = free[chosen].without(resources.server)
        servers.append(free[chosen].name)
    return _Packing(servers, _place_trials(free, resources))


def _dearness(node: Node, resources: ResourcesSpec, servers: list[str]) -> tuple[float, ...]:
    """Return a key that orders nodes for one more server: few servers, little loss of trials, much that is free."""
    loss = node.room_for(resources.trial) - node.without(resources.server).room_for(resources.trial)
    return servers.count(node.name), loss, -sum(node.cards), -node.cpu


def _place_trials(free: Sequence[Node], resources: ResourcesSpec) -> list[str]:
    places = [node.name for node in free for _ in range(node.room_for(resources.trial))]
    return places if resources.max_concurrent == "auto" else places[: resources.max_concurrent]


def _room(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int, packing: _Packing) -> Room:
    bound, at_once = resources.max_concurrent, len(packing.trials)
    if resources.autoscaling and bound != "auto":
        missing = len(packing.servers) < num_servers or at_once < bound
        now = f"; now there is room for {len(packing.servers)} and {at_once}, the rest waits for more nodes"
        return Room(bound, _at_once(bound, num_servers) + (now if missing else ""))
    return Room(at_once, _at_once(at_once, num_servers) + (_places(nodes, packing) if len(nodes) > 1 else ""))


def _num_cards(gpu: float) -> int:
    return 0 if gpu == 0 else max(1, round(gpu))


def _no_room(nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int, task: Task) -> StudyError:
    share: Share = getattr(resources, task)
    grows = "on a cluster that adds nodes, set resources.autoscaling: true and resources.max_concurrent"
    if not any(node.room_for(share) for node in nodes):
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


def _places(nodes: Sequence[Node], packing: _Packing) -> str:
    servers, trials = Counter(packing.servers), Counter(packing.trials)
    places = [
        f"{node.name} {servers[node.name]} server(s) and {trials[node.name]} trial(s)"
        for node in nodes
        if node.name in servers or node.name in trials
    ]
    return f": {', '.join(places)}"
