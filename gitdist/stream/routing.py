"""The router's decisions, without Ray: which server makes a block, and which references are kept."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

from gitdist.stream.keys import BlockKey

Reference = TypeVar("Reference")


def choose_server(outstanding: Sequence[int], class_index: int) -> int:
    """Return the server that makes the next block: the least loaded one.

    Among equals it is the first from ``class_index % servers`` on, so that on idle servers a class meets the
    server that already has its content codes.

    Args:
        outstanding: blocks that each server has yet to make.
        class_index: class of the block.
    """
    num_servers = len(outstanding)
    return min(range(num_servers), key=lambda server: (outstanding[server], (server - class_index) % num_servers))


class Window(Generic[Reference]):
    """The references to the blocks used last, at most ``capacity`` of them."""

    def __init__(self, capacity: int) -> None:
        """Start empty."""
        self.capacity = max(1, capacity)
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
