"""Reading a running stream as trials do, in processes of their own, and counting what the servers made for it.

    round: reader 1 .. R --take(64 labels) until ``count`` blocks of each class are through--> BlockClient -> router
           and then the blocks announced ahead, so that at the end of a round nothing is left to be made

All readers of a round read the same draws. A round starts where the one before it ended, with the blocks ahead made by
that one; so in every round but the first the servers make ``count`` blocks a class, however many read.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray

from gitdist.device import set_threads
from gitdist.spec import StreamSpec
from gitdist.stream.blocks import BlockKey
from gitdist.stream.client import BlockClient
from gitdist.stream.draw_stream import DrawStream
from gitdist.stream.launch import StreamHandle

BATCH = 64  # draws taken at once: about half of a batch of 128


def batches(classes: Sequence[int], draws: int) -> list[Any]:
    """Return the labels of batches of 64 that take ``draws`` of each class, all classes in turn: int64 arrays."""
    labels = np.tile(np.asarray(classes, np.int64), draws)
    return [labels[start : start + BATCH] for start in range(0, len(labels), BATCH)]


class Reader:
    """Takes draws as fast as they come; run as a Ray actor."""

    def __init__(self, router: str, num_classes: int, classes: Sequence[int], stream: StreamSpec) -> None:
        """Connect to the stream of ``router`` and read ``classes``."""
        set_threads(1)
        self._classes, self._spec = classes, stream
        self._blocks = BlockClient(router)
        self._stream = DrawStream(self._blocks, num_classes, stream.lookahead)

    def read(self, first: int, count: int) -> int:
        """Take the draws of blocks ``first`` to ``first + count`` of each class; return how many images that were."""
        size, before = self._spec.block_size, self._stream.draws
        self._stream.cursors = np.full(len(self._stream.cursors), first * size)
        for labels in batches(self._classes, count * size):
            self._stream.take(labels)
        ahead = range(first + count, first + count + self._spec.lookahead + 1)
        self._blocks.get([BlockKey(class_index, index) for class_index in self._classes for index in ahead])
        return self._stream.draws - before


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one round was.

    Attributes:
        generated: images, by all servers.
        making_s: seconds that servers spent on them, in all.
        taken: images that each reader took.
        elapsed_s: from the round's start to its end.
    """

    generated: int
    making_s: float
    taken: int
    elapsed_s: float


class Readership:
    """A running stream with its readers."""

    def __init__(self, handle: StreamHandle, readers: Sequence[Any], num_classes: int, count: int) -> None:
        """Read ``count`` blocks of each of ``num_classes`` classes a round."""
        self._handle, self._readers = handle, readers
        self._num_classes, self._count = num_classes, count
        self._position = 0

    def round(self, num_readers: int) -> Round:
        """Let so many readers read the next blocks."""
        images, making_s = self._done()
        started = time.perf_counter()
        readers = self._readers[:num_readers]
        taken = ray.get([reader.read.remote(self._position, self._count) for reader in readers])
        elapsed_s = time.perf_counter() - started
        self._position += self._count
        assert len(set(taken)) == 1, "readers of one round take the same draws"
        images_now, making_now_s = self._done()
        return Round(
            generated=images_now - images, making_s=making_now_s - making_s, taken=taken[0], elapsed_s=elapsed_s
        )

    def _done(self) -> tuple[int, float]:
        servers = [server.done for server in self._handle.stats()[1]]
        return sum(done.images for done in servers), sum(done.generating_s for done in servers)


@contextmanager
def reading(
    handle: StreamHandle, num_readers: int, num_classes: int, classes: Sequence[int], stream: StreamSpec, count: int
) -> Iterator[Readership]:
    """Start so many readers of a running stream, have them read one round, and end them.

    Args:
        handle: the stream.
        num_readers: processes.
        num_classes: classes of the data set.
        classes: classes that are read.
        stream: its block size and how far readers ask ahead.
        count: blocks of each class a round.
    """
    actor: Any = ray.remote(num_cpus=0)(Reader)
    readers = [actor.remote(handle.router_name, num_classes, classes, stream) for _ in range(num_readers)]
    try:
        readership = Readership(handle, readers, len(classes), count)
        readership.round(num_readers)
        yield readership
    finally:
        for reader in readers:
            ray.kill(reader)
