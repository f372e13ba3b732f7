"""A trial's view of a stream: the next fresh draws of the classes that it names. No Ray in here.

    plan(draws)       -> all blocks that training will need, the first of each class first -> BlockSource.plan
    prefetch(classes) -> the first ``lookahead`` blocks of the classes                     -> BlockSource.request
    take(labels)      -> the blocks up to ``lookahead`` beyond the cursors                 -> BlockSource.request
                      -> the blocks that hold the next draws                               -> BlockSource.get, release

The trial waits in ``get`` only; the other calls return at once.
"""

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gitdist.stream.blocks import Block, BlockKey, BlockLayout, BlockMaker

_MAX_PLANNED = 2**17  # blocks; each is a key in this process and in the client


class BlockSource(Protocol):
    """Where one trial's blocks come from; for one thread."""

    layout: BlockLayout
    generated: int  # images that this process generated so far; 0 if servers do
    waited_s: float  # seconds that ``get`` has waited for blocks so far

    def plan(self, keys: Sequence[BlockKey]) -> None:
        """Have these blocks made in this order while nothing is requested; this replaces the plan before."""

    def request(self, keys: Sequence[BlockKey]) -> None:
        """Have these blocks delivered, most urgent first."""

    def get(self, keys: Sequence[BlockKey]) -> list[Block]:
        """Return the blocks in the order of ``keys``, waiting for them; they are held until ``release``.

        Raises:
            StreamError: a block cannot be delivered.
        """

    def release(self, keys: Sequence[BlockKey]) -> None:
        """Let go of held blocks that are used up."""

    def close(self) -> None:
        """End the source; later calls of ``get`` raise StreamError."""


class LocalBlocks:
    """Blocks that this process makes when the trial gets them: one thread gains nothing by an earlier request."""

    def __init__(self, maker: BlockMaker) -> None:
        """Serve the blocks of ``maker``."""
        self.layout = maker.layout
        self.generated, self.waited_s = 0, 0.0
        self._maker = maker
        self._held: dict[BlockKey, Block] = {}

    def plan(self, keys: Sequence[BlockKey]) -> None:
        """Do nothing."""

    def request(self, keys: Sequence[BlockKey]) -> None:
        """Do nothing."""

    def get(self, keys: Sequence[BlockKey]) -> list[Block]:
        """Return the blocks in the order of ``keys``, making those that are not held."""
        for key in keys:
            if key not in self._held:
                started = time.perf_counter()
                self._held[key] = self._maker.make(key)
                self.waited_s += time.perf_counter() - started
        self.generated = self._maker.stats.images
        return [self._held[key] for key in keys]

    def release(self, keys: Sequence[BlockKey]) -> None:
        """Let go of held blocks that are used up."""
        for key in keys:
            self._held.pop(key, None)

    def close(self) -> None:
        """Let go of all blocks."""
        self._held.clear()


class _Run(NamedTuple):
    """Consecutive draws out of one block: ``order[low:high]`` of the batch get ``block[offset:...]``."""

    key: BlockKey
    low: int
    high: int
    offset: int


class DrawStream:
    """One trial's position in a stream: one cursor per class; each draw is returned once, in order. For one thread."""

    def __init__(self, source: BlockSource, num_classes: int, lookahead: int, replicate: int = 0) -> None:
        """Start at the first draw of each class.

        Args:
            source: used by this stream only.
            num_classes: number of classes C.
            lookahead: blocks requested ahead of the cursor, per class.
            replicate: which of the independent streams over the same images.
        """
        self.draws = 0  # taken
        self._source = source
        self._block_size = source.layout.block_size
        self._lookahead = lookahead
        self._replicate = replicate
        self._ends = np.full(num_classes, np.iinfo(np.int64).max)  # blocks from there on are not requested ahead
        self._cursors = np.zeros(num_classes, np.int64)
        self._requested = np.zeros(num_classes, np.int64)  # blocks of each class

    @property
    def cursors(self) -> NDArray[np.int64]:
        """The number of draws taken of each class, int64 ``[C]``; setting it moves the stream there."""
        return self._cursors.copy()

    @cursors.setter
    def cursors(self, cursors: NDArray[np.int64]) -> None:
        current = (self._cursors // self._block_size).tolist()
        self._source.release([BlockKey(index, block, self._replicate) for index, block in enumerate(current)])
        self._cursors = np.array(cursors, np.int64)
        self._requested = self._cursors // self._block_size

    @property
    def generated(self) -> int:
        """The images that this process generated for the stream; 0 if servers do."""
        return self._source.generated

    @property
    def waited_s(self) -> float:
        """The seconds spent waiting for blocks."""
        return self._source.waited_s

    def plan(self, draws: NDArray[np.int64]) -> None:
        """Have blocks for ``draws`` per class, int64 ``[C]``, made while servers are idle, and request none beyond.

        Of very many blocks only the first of each class are made so; no window keeps more.
        """
        self._ends = -(-np.asarray(draws, np.int64) // self._block_size)
        first = self._cursors // self._block_size
        stops = np.minimum(self._ends, first + max(1, _MAX_PLANNED // max(1, int((self._ends > first).sum()))))
        self._source.plan(self._nearest_first(np.arange(len(first)), first, first, stops))

    def prefetch(self, classes: Sequence[int] | NDArray[np.int64]) -> None:
        """Request the first blocks of the classes that will be drawn from, before the first use."""
        unique = np.unique(np.asarray(classes, np.int64))
        self._request(unique, self._cursors[unique])

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
        self._request(classes, self._cursors[classes] + counts[classes])
        runs = self._runs(counts)
        blocks = self._source.get([run.key for run in runs])
        used_up = []
        for (key, low, high, offset), block in zip(runs, blocks, strict=True):
            end = offset + high - low
            drawn[order[low:high]] = block.images[offset:end]
            if end == self._block_size:
                used_up.append(key)
        self._source.release(used_up)
        self._cursors += counts
        self.draws += len(labels)
        return drawn

    def close(self) -> None:
        """End the stream and its source."""
        self._source.close()

    def _runs(self, counts: NDArray[np.int64]) -> list[_Run]:
        """Return the next ``counts`` draws of each class, class by class, cut where a block ends."""
        runs, low = [], 0
        for class_index in np.flatnonzero(counts).tolist():
            cursor = int(self._cursors[class_index])
            end = cursor + int(counts[class_index])
            while cursor < end:
                index, offset = divmod(cursor, self._block_size)
                length = min(end - cursor, self._block_size - offset)
                runs.append(_Run(BlockKey(class_index, index, self._replicate), low, low + length, offset))
                cursor, low = cursor + length, low + length
        return runs

    def _request(self, classes: NDArray[np.int64], cursors: NDArray[np.int64]) -> None:
        """Request new blocks up to ``lookahead`` beyond ``cursors``."""
        current = self._cursors[classes] // self._block_size
        starts = np.maximum(self._requested[classes], current)
        stops = np.minimum(cursors // self._block_size + self._lookahead + 1, self._ends[classes])
        if (stops > starts).any():
            self._requested[classes] = np.maximum(starts, stops)
            self._source.request(self._nearest_first(classes, current, starts, stops))

    def _nearest_first(
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
