"""Blocks of draws: what they are, and how they are made.

    rows of the class --named seed--> sources [m] --code cache--> codes [m, ...] --one batch--> images [m, C, H, W]

A block is a pure function of data set, generator, stream seed, replicate, block size, class and index. Content codes
are computed in fixed chunks of rows of a class, so the bytes of a block depend neither on the blocks made before it
nor on the server that makes it. All replicates share the codes. The most recently used chunks are kept, within a bound
of bytes; the others are computed again.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gitdist import bounds
from gitdist.bounds import rows_within
from gitdist.data.dataset import Dataset, Split
from gitdist.device import process_memory
from gitdist.errors import StreamError
from gitdist.generator.base import Generator
from gitdist.seeds import derive_seed, numpy_rng
from gitdist.spec import StreamSpec

ENCODE_BATCH = 64  # images encoded together; on a CPU 64 beats 256
_SHARED_FROM_BYTES = 100 * 1024  # Ray sends smaller results through the router's process, at twice the cost


def resolve_block_size(stream: StreamSpec, dataset: Dataset) -> tuple[int, int]:
    """Return the draws in a block, and the images that are encoded together.

    If ``auto`` makes blocks smaller than 64, fewer images are encoded together too, since their codes may not be kept
    until the next block of the class. It assumes the default ``lookahead``: a study may change its own when it resumes,
    but another block size gives other draws.
    """
    if stream.block_size != "auto":
        return stream.block_size, ENCODE_BATCH
    of_class = StreamSpec().lookahead + 1  # the one that is drawn from, and those ahead
    blocks = dataset.num_classes * of_class
    size = min(ENCODE_BATCH, rows_within(bounds.BLOCKS_BYTES, blocks * math.prod(dataset.image_shape)))
    return size, size


class BlockSequence(NamedTuple):
    """An endless sequence of blocks: one class of one replicate's stream."""

    class_index: int
    replicate: int = 0


class BlockKey(NamedTuple):
    """Names a block: draws ``index * block_size`` up to ``(index + 1) * block_size`` of one sequence.

    Replicates are independent streams over the same images; replicate 0 is the default stream.
    """

    class_index: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which no key needs
    replicate: int = 0

    @property
    def sequence(self) -> BlockSequence:
        """The sequence that the block belongs to."""
        return BlockSequence(self.class_index, self.replicate)


class BlockRange(NamedTuple):
    """The blocks ``start`` up to, not including, ``stop`` of one sequence."""

    sequence: BlockSequence
    start: int
    stop: int

    def keys(self) -> list[BlockKey]:
        """Return the blocks' keys in order."""
        class_index, replicate = self.sequence
        return [BlockKey(class_index, index, replicate) for index in range(self.start, self.stop)]


@dataclass(frozen=True)
class Block:
    """Consecutive draws of one class; read-only if it comes from an object store."""

    images: NDArray[np.uint8]  # [block_size, C, H, W]
    sources: NDArray[np.int64]  # [block_size], the training row that each image was drawn from
    ballast: NDArray[np.uint8] | None = None  # no content; makes a small block large enough for shared memory


@dataclass(frozen=True, kw_only=True)
class BlockLayout:
    """What all blocks of a stream have in common."""

    block_size: int  # draws
    image_shape: tuple[int, int, int]  # C, H, W

    @property
    def block_bytes(self) -> int:
        """The size of a block without ballast, in bytes."""
        channels, height, width = self.image_shape
        return self.block_size * (channels * height * width + 8)

    @property
    def ballast_bytes(self) -> int:
        """The bytes that a block needs on top to be sent through shared memory."""
        return max(0, _SHARED_FROM_BYTES - self.block_bytes)


@dataclass(frozen=True, kw_only=True)
class StreamSignature:
    """What identifies the blocks of a stream; all of its servers have the same."""

    layout: BlockLayout
    draws: Mapping[str, Any]  # everything that determines the draws; see ``server.draw_spec``
    digest: str  # the hash of all that determines a block; names the folder of such blocks in a store


@dataclass
class MakerStats:
    """What a server has done since its process started."""

    blocks: int = 0  # made
    cache_hits: int = 0  # blocks read from disk instead
    cache_rejects: int = 0  # blocks made but not written to disk, because the store was full
    images: int = 0  # generated
    encoded: int = 0  # images
    generating_s: float = 0.0  # encoding and decoding


class _CodeCache:
    """The most recently used chunks of content codes, by class and chunk, within ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._num_bytes = max_bytes, 0
        self._chunks: OrderedDict[tuple[int, int], torch.Tensor] = OrderedDict()

    def get(self, key: tuple[int, int]) -> torch.Tensor | None:
        if key in self._chunks:
            self._chunks.move_to_end(key)
        return self._chunks.get(key)

    def put(self, key: tuple[int, int], codes: torch.Tensor) -> None:
        """Keep a new chunk; remove the least recently used ones until all fit."""
        self._chunks[key] = codes
        self._num_bytes += codes.nbytes
        while self._num_bytes > self._max_bytes:
            self._num_bytes -= self._chunks.popitem(last=False)[1].nbytes


class BlockMaker:
    """Makes blocks from one generator over one training split.

    Not thread-safe; it owns its code cache on the generator's device.
    """

    def __init__(
        self,
        generator: Generator,
        train: Split,
        seed: int,
        block_size: int,
        max_code_bytes: int | None = None,
        chunk_size: int = ENCODE_BATCH,
    ) -> None:
        """Prepare to draw from a training split.

        Args:
            generator: makes the draws.
            train: the images to draw from.
            seed: of the stream.
            block_size: draws in a block.
            max_code_bytes: bounds the content codes that are kept; None = ``CODES_SHARE`` of this process's memory.
            chunk_size: images of a class that are encoded together.
        """
        channels, height, width = train.images.shape[1:]
        self.layout = BlockLayout(block_size=block_size, image_shape=(channels, height, width))
        self.stats = MakerStats()
        self._generator, self._train, self._seed = generator, train, seed
        self._rows = [np.flatnonzero(train.labels == class_index) for class_index in range(int(train.labels.max()) + 1)]
        if max_code_bytes is None:
            max_code_bytes = int(bounds.CODES_SHARE * process_memory(generator.device))
        self._cache, self.chunk_size = _CodeCache(max_code_bytes), chunk_size

    @torch.inference_mode()
    def make(self, key: BlockKey) -> Block:
        """Return one block: sources uniform over the class with replacement, one fresh draw of each.

        Raises:
            StreamError: the class has no training image to draw from.
        """
        started = time.perf_counter()
        class_index, index, replicate = key
        if not 0 <= class_index < len(self._rows) or not len(self._rows[class_index]):
            raise StreamError(
                f"a draw needs a class with training images, but class {class_index} has none; "
                "choose a profile that keeps it"
            )
        rows = self._rows[class_index]
        seed = derive_seed(self._seed, "stream/replicate", replicate) if replicate else self._seed
        positions = numpy_rng(seed, "stream/sources", class_index, index).integers(
            len(rows), size=self.layout.block_size
        )
        rng = numpy_rng(seed, "stream/draw", class_index, index)
        images = self._generator.draw(self._codes(class_index, positions), rng)
        self.stats.blocks += 1
        self._count_images(len(images), started)
        return Block(np.ascontiguousarray(images.numpy()), rows[positions])

    @torch.inference_mode()
    def transform(
        self, images: NDArray[np.uint8], clean: NDArray[np.uint8], name: str, index: int = 0, first: int = 0
    ) -> NDArray[np.uint8]:
        """Return one fresh draw for each image, uint8 ``[N, C, H, W]``; ``name`` and ``index`` name the randomness.

        ``clean`` are the images before the nuisance. The images are those from ``first`` on, a multiple of
        ``ENCODE_BATCH``, of a longer list, and get the draws that they get when all of it is transformed at once.
        """
        started = time.perf_counter()
        drawn = np.empty_like(images, order="C")
        for batch, low in enumerate(range(0, len(images), ENCODE_BATCH), start=first // ENCODE_BATCH):
            part = slice(low, low + ENCODE_BATCH)
            codes = self._encode(images[part], clean[part])
            drawn[part] = self._generator.draw(codes, numpy_rng(self._seed, name, index, batch)).numpy()
        self._count_images(len(images), started)
        return drawn

    def _codes(self, class_index: int, positions: NDArray[np.int64]) -> torch.Tensor:
        """Return the codes of some images of a class, given by their positions in it."""
        gathered: torch.Tensor | None = None
        chunk_of = positions // self.chunk_size
        for chunk in np.unique(chunk_of).tolist():
            codes = self._chunk_codes(class_index, chunk)
            if gathered is None:
                gathered = codes.new_empty((len(positions), *codes.shape[1:]))
            here = np.flatnonzero(chunk_of == chunk)
            within = torch.from_numpy(positions[here] - chunk * self.chunk_size).to(codes.device)
            gathered[torch.from_numpy(here).to(codes.device)] = codes[within]
        assert gathered is not None, "a block has draws"
        return gathered

    def _chunk_codes(self, class_index: int, chunk: int) -> torch.Tensor:
        codes = self._cache.get((class_index, chunk))
        if codes is None:
            rows = self._rows[class_index][chunk * self.chunk_size : (chunk + 1) * self.chunk_size]
            codes = self._encode(self._train.images[rows], self._train.clean[rows])
            self._cache.put((class_index, chunk), codes)
        return codes

    def _encode(self, images: NDArray[np.uint8], clean: NDArray[np.uint8]) -> torch.Tensor:
        self.stats.encoded += len(images)
        return self._generator.encode(torch.tensor(images), torch.tensor(clean))

    def _count_images(self, num_images: int, started: float) -> None:
        self.stats.images += num_images
        self.stats.generating_s += time.perf_counter() - started
