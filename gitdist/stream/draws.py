"""What a trial sees of a stream: the next fresh draws of the classes it names. No Ray in here.

    take(labels) -> runs of consecutive draws, one a (class, block) -> blocks held here, else BlockSource.get
                                                                    -> BlockSource.prefetch, ``lookahead`` further
    prepare(draws) -> all blocks that will be needed, the first of every class first -> BlockSource.prepare

The trial waits in ``get`` only; ``prefetch`` and ``prepare`` return at once.
"""

import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gitdist.stream.blocks import BlockMaker
from gitdist.stream.keys import Block, BlockKey, Layout

__all__ = ["Block", "BlockKey", "BlockSource", "DrawStream", "LocalBlocks"]


class BlockSource(Protocol):
    """Where blocks come from. Whoever got a block keeps it as long as it needs it; ask once for each."""

    @property
    def layout(self) -> Layout:
        """The block size and image shape of all blocks."""

    @property
    def generated(self) -> int:
        """The images that this process generated for it; 0 where others do."""

    def get(self, keys: Sequence[BlockKey]) -> list[Block]:
        """Return the blocks in the order of ``keys``, waiting for them; raises StreamError, never hangs."""

    def prefetch(self, keys: Sequence[BlockKey]) -> None:
        """Announce blocks that will be asked for, most urgent first; returns at once."""

    def prepare(self, keys: Sequence[BlockKey]) -> None:
        """Name blocks to be made, in this order, while nothing else is asked for; returns at once.

        What was named before and is not made yet is forgotten.
        """

    def close(self) -> None:
        """End the source; later calls of ``get`` raise StreamError."""


class LocalBlocks:
    """Blocks made in this process when they are asked for, the last ``capacity`` of them kept."""

    def __init__(self, maker: BlockMaker, capacity: int = 256) -> None:
        """Serve blocks of ``maker``; several streams may read them, in one thread."""
        self._maker = maker
        self._capacity = capacity
        self._kept: OrderedDict[BlockKey, Block] = OrderedDict()

    @property
    def layout(self) -> Layout:
        """The block size and image shape of all blocks."""
        return self._maker.layout

    @property
    def generated(self) -> int:
        """The images generated so far."""
        return self._maker.stats.images

    def get(self, keys: Sequence[BlockKey]) -> list[Block]:
        """Return the blocks in the order of ``keys``, making those that are not kept."""
        return [self._get(key) for key in keys]

    def prefetch(self, keys: Sequence[BlockKey]) -> None:
        """Do nothing: in one thread a block made ahead is no sooner there."""

    def prepare(self, keys: Sequence[BlockKey]) -> None:
        """Do nothing: in one thread there is no idle time."""

    def close(self) -> None:
        """Forget all blocks."""
        self._kept.clear()

    def _get(self, key: BlockKey) -> Block:
        block = self._kept.pop(key, None) or self._maker.make(key)
        self._kept[key] = block
        if len(self._kept) > self._capacity:
            self._kept.popitem(last=False)
        return block


class _Run(NamedTuple):
    """Consecutive draws out of one block: ``order[low:high]`` of the batch get ``block[offset:...]``."""

    key: BlockKey
    low: int
    high: int
    offset: int


class DrawStream:
    """One trial's place in a stream: a cursor a class, each draw handed out once and in order.

    For one thread. ``waited_s`` is the time spent waiting for blocks, ``draws`` the number of images taken.
    """

    def __init__(
        self, source: BlockSource, num_classes: int, block_size: int, lookahead: int, replicate: int = 0
    ) -> None:
        """Start at the first draw of every class.

        Args:
            source: where blocks come from; shared with no other thread.
            num_classes: number of classes C.
            block_size: draws a block, the source's.
            lookahead: blocks asked for ahead of the cursor, per class.
            replicate: which of the independent streams over the same images.
        """
        self.waited_s = 0.0
        self.draws = 0
        self._source = source
        self._block_size = block_size
        self._lookahead = lookahead
        self._replicate = replicate
        self._ends = np.full(num_classes, np.iinfo(np.int64).max)  # blocks from there on are not announced
        self._held: dict[BlockKey, Block] = {}
        self.cursors = np.zeros(num_classes, np.int64)

    @property
    def cursors(self) -> NDArray[np.int64]:
        """The number of draws taken of each class, int64 ``[C]``; setting it moves the stream there."""
        return self._cursors.copy()

    @cursors.setter
    def cursors(self, cursors: NDArray[np.int64]) -> None:
        self._cursors = np.array(cursors, np.int64)
        self._announced = self._cursors // self._block_size
        self._held.clear()

    @property
    def generated(self) -> int:
        """The images that this process generated for the stream; 0 where others do."""
        return self._source.generated

    def start(self, classes: Sequence[int] | NDArray[np.int64]) -> None:
        """Announce the first blocks of the classes that will be drawn from, before the first use."""
        unique = np.unique(np.asarray(classes, np.int64))
        self._announce(unique, self._cursors[unique])

    def prepare(self, draws: NDArray[np.int64]) -> None:
        """Announce how many draws of each class will be taken in all, so that their blocks are made in idle time.

        No block beyond these is announced from now on; draws beyond them can be taken, but are waited for.

        Args:
            draws: int64 ``[C]``, counted from the first draw of the stream.
        """
        self._ends = -(-np.asarray(draws, np.int64) // self._block_size)
        first = self._cursors // self._block_size
        self._source.prepare(self._rounds(np.arange(len(first)), first, first, self._ends))

    def take(self, labels: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the next fresh draw of each label's class.

        Args:
            labels: int64 ``[n]``; equal labels get consecutive draws, in their order.

        Returns:
            uint8 ``[n, C, H, W]``, the caller's own.

        Raises:
            StreamError: the stream cannot deliver; the cursors have not moved then.
        """
        labels = np.asarray(labels, np.int64)
        drawn = np.empty((len(labels), *self._source.layout.image_shape), np.uint8)
        if not len(labels):
            return drawn
        order = np.argsort(labels, kind="stable")
        counts = np.bincount(labels, minlength=len(self._cursors))
        classes = np.flatnonzero(counts)
        counts = counts[classes]
        self._announce(classes, self._cursors[classes] + counts)
        runs = self._runs(labels[order], classes, counts)
        self._hold([run.key for run in runs])
        for key, low, high, offset in runs:
            drawn[order[low:high]] = self._held[key].images[offset : offset + high - low]
            if offset + high - low == self._block_size:
                del self._held[key]
        self._cursors[classes] += counts
        self.draws += len(labels)
        return drawn

    def close(self) -> None:
        """End the stream and its source."""
        self._held.clear()
        self._source.close()

    def _runs(self, labels: NDArray[np.int64], classes: NDArray[np.int64], counts: NDArray[np.int64]) -> list[_Run]:
        """Cut sorted labels into runs of consecutive draws out of one block."""
        first = np.cumsum(counts) - counts
        draws = np.arange(len(labels)) + np.repeat(self._cursors[classes] - first, counts)
        blocks, offsets = np.divmod(draws, self._block_size)
        cuts = offsets == 0
        cuts[first] = True
        starts = np.flatnonzero(cuts)
        stops = np.append(starts[1:], len(labels))
        return [
            _Run(BlockKey(class_index, index, self._replicate), low, high, offset)
            for class_index, index, low, high, offset in zip(
                labels[starts].tolist(),
                blocks[starts].tolist(),
                starts.tolist(),
                stops.tolist(),
                offsets[starts].tolist(),
                strict=True,
            )
        ]

    def _hold(self, keys: list[BlockKey]) -> None:
        missing = [key for key in keys if key not in self._held]
        if missing:
            start = time.perf_counter()
            try:
                self._held.update(zip(missing, self._source.get(missing), strict=True))
            finally:
                self.waited_s += time.perf_counter() - start

    def _announce(self, classes: NDArray[np.int64], cursors: NDArray[np.int64]) -> None:
        """Announce what is new up to ``lookahead`` blocks beyond ``cursors``, the nearest of all classes first."""
        current = self._cursors[classes] // self._block_size
        starts = np.maximum(self._announced[classes], current)
        stops = np.minimum(cursors // self._block_size + self._lookahead + 1, self._ends[classes])
        if (stops > starts).any():
            self._announced[classes] = np.maximum(starts, stops)
            self._source.prefetch(self._rounds(classes, current, starts, stops))

    def _rounds(
        self,
        classes: NDArray[np.int64],
        current: NDArray[np.int64],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
    ) -> list[BlockKey]:
        """Return the blocks ``starts`` up to ``stops`` of the classes, those nearest to ``current`` first."""
        keys = [
            (index - here, BlockKey(class_index, index, self._replicate))
            for class_index, here, start, stop in zip(
                classes.tolist(), current.tolist(), starts.tolist(), stops.tolist(), strict=True
            )
            for index in range(start, stop)
        ]
        return [key for _, key in sorted(keys)]
