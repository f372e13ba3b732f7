"""The router's decisions, without Ray: which server makes a block, which references are kept, what is made ahead."""

from collections import Counter, OrderedDict
from collections.abc import Container, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

from gitdist.stream.keys import BlockKey, Layout

Reference = TypeVar("Reference")

_SAFE_SHARE = 0.6  # of an object store: Ray spills from 0.8 on, and clients hold blocks that have left the window
_AHEAD_PER_SERVER = 2  # blocks: one that is being made and one to go on with, so a request waits for at most two


class Found(NamedTuple, Generic[Reference]):
    """A block's reference, as a router hands it out.

    Attributes:
        key: the block.
        reference: to it.
        ended: its making had ended before it was asked for now.
    """

    key: BlockKey
    reference: Reference
    ended: bool


class Prepared(NamedTuple, Generic[Reference]):
    """What a router says to a client that prepares.

    Attributes:
        router: the name of this life of the router; what an earlier one had made has gone with it.
        there: blocks, of those that were named, that are made.
        making: references to those that are being made.
        full: no block can be made ahead any more without letting go of another.
    """

    router: str
    there: list[BlockKey]
    making: list[Reference]
    full: bool


def choose_server(outstanding: Sequence[int], absent: Container[int], class_index: int) -> int:
    """Return the server that makes the next block: the least loaded one of those that are there, if any is.

    Among equals it is the first from ``class_index % servers`` on, so that on idle servers a class meets the
    server that already has its content codes.

    Args:
        outstanding: blocks that each server has yet to make.
        absent: servers whose process or node is gone for now.
        class_index: class of the block.
    """
    num_servers = len(outstanding)
    return min(
        range(num_servers),
        key=lambda server: (server in absent, outstanding[server], (server - class_index) % num_servers),
    )


def num_to_prepare(outstanding: Sequence[int], num_absent: int, num_kept: int, capacity: int) -> int:
    """Return how many blocks may be made now that nobody waits for: few, and none that pushes another one out.

    Args:
        outstanding: blocks that each server has yet to make, whoever asked for them.
        num_absent: servers that are gone for now.
        num_kept: blocks in the window.
        capacity: of the window, in blocks.
    """
    busy = sum(outstanding)
    return max(0, min(_AHEAD_PER_SERVER * (len(outstanding) - num_absent) - busy, capacity - num_kept - busy))


def blocks_within(num_bytes: int, layout: Layout) -> int:
    """Return how many blocks, with their ballast, fit into ``num_bytes``; at least one."""
    return max(1, num_bytes // (layout.block_bytes + layout.ballast_bytes))


def safe_window(nodes: Sequence[str], store_bytes: Mapping[str, float]) -> int:
    """Return how many bytes of blocks the object stores of the servers' nodes keep without spilling.

    Args:
        nodes: of each server, the node it is on; all make equally many blocks.
        store_bytes: of each node, the size of its object store.
    """
    return int(min(_SAFE_SHARE * store_bytes[node] * len(nodes) / count for node, count in Counter(nodes).items()))


class Window(Generic[Reference]):
    """The references to the blocks used last, at most ``capacity`` of them."""

    def __init__(self, capacity: int) -> None:
        """Start empty; ``capacity`` is at least 1."""
        self.capacity = capacity
        self._kept: OrderedDict[BlockKey, Reference] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: BlockKey) -> Reference | None:
        """Return a block's reference and mark it as used now; None if it is not kept."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(self, key: BlockKey, reference: Reference) -> None:
        """Keep a reference, letting go of the one unused for longest where there are too many."""
        self._kept[key] = reference
        self._kept.move_to_end(key)
        if len(self._kept) > self.capacity:
            self._kept.popitem(last=False)

    def drop(self, key: BlockKey) -> None:
        """Let go of a block's reference, if it is kept."""
        self._kept.pop(key, None)
