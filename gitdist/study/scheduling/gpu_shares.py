"""Chooses what ``gpu: auto`` means on a cluster, and says which process uses which GPU: arithmetic, without Ray.

The rule: the generator is trained alone, on one whole card. Then each card is cut into n equal parts; a trial takes one
part, a server one or more. Of all such cuts, with n up to ``max_per_card``, the best one

    1. leaves the fewest cards idle,
    2. puts the servers on the most different cards,
    3. runs the most trials at once,
    4. gives each trial the largest part.

CPUs bound the processes as ever. If no cut has room for all servers and a trial, the servers run on CPUs, or else the
trials, or else all of them.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gitdist.spec import ResourcesSpec, Share
from gitdist.study.scheduling.packing import Node, pack

MAX_PER_CARD = 8  # processes on one card
_PROCESS_BYTES = 4 * 2**30  # of a card's memory: small networks on images of up to 64 pixels
_SMALL_SIDE = 64
_PARTS = 10_000  # of a card: what Ray counts
_MAX_LISTED = 8  # nodes in a message


@dataclass
class CardUse:
    """How many servers and trials run on one card of a node; the cards of a node are counted from 0."""

    node: str
    card: int
    servers: int = 0
    trials: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether no process runs there."""
        return not (self.servers or self.trials)

    def describe(self) -> str:
        """Return what runs there as text."""
        counts = ((self.servers, "server(s)"), (self.trials, "trial(s)"))
        return " and ".join(f"{count} {what}" for count, what in counts if count) or "idle"


def processes_per_card(card_bytes: int | None, image_side: int) -> int:
    """Return how many processes may share a card: one per 4 GiB of it (more for large images), 2 to 8 in all.

    ``card_bytes`` is the memory of the smallest card; None = unknown, taken as ample. Above 64 pixels, a process needs
    memory in proportion to the side of the images.
    """
    if card_bytes is None:
        return MAX_PER_CARD
    needed = _PROCESS_BYTES * max(1.0, image_side / _SMALL_SIDE)
    return min(MAX_PER_CARD, max(2, int(card_bytes / needed)))


def share_gpus(
    nodes: Sequence[Node],
    resources: ResourcesSpec,
    num_servers: int,
    num_trials: int,
    max_per_card: int = MAX_PER_CARD,
) -> ResourcesSpec:
    """Return the resources with a number for each ``gpu: auto``: 0 on a cluster without GPUs.

    Args:
        nodes: their total resources.
        resources: of the study.
        num_servers: generator servers that run beside the trials.
        num_trials: trials that there are to run.
        max_per_card: processes on one card at most.
    """
    resources = _replaced(resources, training=_alone(nodes, resources.training))
    if not num_servers:  # a server runs now and then, and alone
        resources = _replaced(resources, server=_alone(nodes, resources.server))
    if not any(node.cards for node in nodes):
        return _replaced(resources, server=0.0, trial=0.0)
    for server_on_gpu, trial_on_gpu in ((True, True), (False, True), (True, False)):
        best: tuple[tuple[float, ...], ResourcesSpec] | None = None
        for server, trial in _cuts(max_per_card, server_on_gpu, trial_on_gpu):
            candidate = _replaced(resources, server=server, trial=trial)
            score = _score(nodes, candidate, num_servers, num_trials)
            if score is not None and (best is None or score > best[0]):
                best = score, candidate
        if best is not None:
            return best[1]
    return _replaced(resources, server=0.0, trial=0.0)


def use_of_cards(
    nodes: Sequence[Node], resources: ResourcesSpec, servers: Sequence[str], num_trials: int
) -> list[CardUse]:
    """Return the use of every card, with servers on the nodes ``servers`` and as many trials as fit and there are."""
    free = {node.name: Node(node.name, node.cpu, list(node.cards)) for node in nodes}
    cards = {(node.name, card): CardUse(node.name, card) for node in nodes for card in range(len(node.cards))}
    for name in servers:
        for card in free[name].allocate(resources.server):
            cards[name, card].servers += 1
    remaining = _most_trials(resources, num_trials)
    for name, node in free.items():
        fitting = min(node.num_fitting(resources.trial), remaining)
        remaining -= fitting
        for _ in range(fitting):
            for card in node.allocate(resources.trial):
                cards[name, card].trials += 1
    return list(cards.values())


def describe_gpus(resources: ResourcesSpec, cards: Sequence[CardUse], *, sharing: bool) -> str:
    """Return in one line the shares and what runs on each card; ``sharing`` = whether servers run beside trials."""
    shares = {"server": resources.server, "trial": resources.trial} if sharing else {"trial": resources.trial}
    names = list(dict.fromkeys(card.node for card in cards))
    given = ", ".join(f"{name} {share.num_gpus:g}" for name, share in shares.items())
    parts = [f"share of a GPU: {given}"]
    for name in names[:_MAX_LISTED]:
        on_node = [card for card in cards if card.node == name]
        where = f" of {name}" if len(names) > 1 else ""
        parts += [f"GPU {numbers}{where}: {text}" for numbers, text in _alike(on_node)]
    if len(names) > _MAX_LISTED:
        parts.append(f"{len(names) - _MAX_LISTED} more nodes")
    return "; ".join(parts)


def describe_idle(resources: ResourcesSpec, cards: Sequence[CardUse], num_trials: int) -> tuple[str, str] | None:
    """Return in words which cards are idle and what to do about it; None if none is."""
    idle = [card for card in cards if card.is_idle]
    if not idle:
        return None
    names = list(dict.fromkeys(card.node for card in idle))
    listed = []
    for name in names[:_MAX_LISTED]:
        numbers = _ranges([card.card for card in idle if card.node == name])
        listed.append(f"GPU {numbers}" + (f" of {name}" if len({card.node for card in cards}) > 1 else ""))
    more = f" and those of {len(names) - _MAX_LISTED} more nodes" if len(names) > _MAX_LISTED else ""
    return f"idle: {', '.join(listed)}{more}", _remedy(resources, cards, num_trials)


def _remedy(resources: ResourcesSpec, cards: Sequence[CardUse], num_trials: int) -> str:
    trial, running = resources.trial, sum(card.trials for card in cards)
    if not trial.num_gpus:
        return "set resources.trial.gpu: auto, or lower resources.trial.cpu until a trial fits beside its GPU"
    if running >= num_trials:
        return f"the study has only {num_trials} trial(s) to run at once: raise search.total, or use fewer GPUs"
    if running == resources.max_concurrent:
        return f"raise resources.max_concurrent, which is {resources.max_concurrent}"
    if trial.num_gpus < 1 and sum(not card.is_idle for card in cards) < running:
        return "set resources.trial.gpu: auto, which gives each GPU some trials"
    return f"lower resources.trial.cpu, which is {trial.cpu:g}, until each GPU has a trial"


def _cuts(max_per_card: int, server_on_gpu: bool, trial_on_gpu: bool) -> Iterator[tuple[float, float]]:
    """Yield shares of a server and of a trial, those with large parts first."""
    for parts in range(1, max_per_card + 1):
        trial = _PARTS // parts / _PARTS if trial_on_gpu else 0.0
        for taken in range(1, parts + 1):
            yield _PARTS * taken // parts / _PARTS if server_on_gpu else 0.0, trial


def _score(
    nodes: Sequence[Node], resources: ResourcesSpec, num_servers: int, num_trials: int
) -> tuple[float, ...] | None:
    """Return how good a cut is by the rule above; None if servers and one trial do not fit."""
    packing = pack(nodes, resources, num_servers)
    running = min(len(packing.trials), _most_trials(resources, num_trials))
    if len(packing.servers) < num_servers or (num_trials and not running):
        return None
    cards = use_of_cards(nodes, resources, packing.servers, num_trials)
    busy = sum(not card.is_idle for card in cards)
    with_server = sum(card.servers > 0 for card in cards)
    return busy, with_server, running, resources.trial.num_gpus


def _most_trials(resources: ResourcesSpec, num_trials: int) -> int:
    return num_trials if resources.max_concurrent == "auto" else min(num_trials, resources.max_concurrent)


def _alone(nodes: Sequence[Node], share: Share) -> float:
    """Return the share of a GPU of a process that runs alone: one card, unless only nodes without cards hold it."""
    if not any(node.cards for node in nodes):
        return 0.0
    on_card, on_cpu = (any(node.num_fitting(Share(cpu=share.cpu, gpu=gpu)) for node in nodes) for gpu in (1.0, 0.0))
    return 0.0 if on_cpu and not on_card else 1.0


def _replaced(resources: ResourcesSpec, **gpus: float) -> ResourcesSpec:
    """Return the resources with these shares of a GPU for the tasks whose share is ``auto``."""
    shares: dict[str, Share] = {task: getattr(resources, task) for task in gpus}
    replaced = {
        task: share.model_copy(update={"gpu": gpus[task]}) for task, share in shares.items() if share.gpu == "auto"
    }
    return resources.model_copy(update=replaced)


def _alike(cards: Sequence[CardUse]) -> Iterator[tuple[str, str]]:
    """Yield the numbers of neighbouring cards with the same use, and that use."""
    for text, group in itertools.groupby(cards, CardUse.describe):
        alike = list(group)
        yield _ranges([card.card for card in alike]), text + (" each" if len(alike) > 1 and text != "idle" else "")


def _ranges(numbers: Sequence[int]) -> str:
    """Return rising numbers as text: 0-3, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
