"""Blocks of draws as a pure function of (data set, generator, stream seed, replicate, block size, class, index).

    rows of the class --named seed--> sources [m] --code cache--> codes [m, ...] --one batch--> images [m, C, H, W]

Content codes are computed once an image, in fixed chunks of 64 rows of a class, so that a block's bytes depend
neither on which blocks were made before it nor on who made them. All replicates share the codes.
"""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gitdist.errors import StreamError
from gitdist.generator.base import Generator
from gitdist.seeds import derive_seed, numpy_rng
from gitdist.stream.keys import Block, BlockKey, Layout

__all__ = ["Block", "BlockKey", "BlockMaker", "MakerStats"]

_BATCH = 64  # images encoded together; on a processor 64 beats 256


@dataclass
class MakerStats:
    """What a maker has done so far.

    Attributes:
        blocks: blocks made.
        read: blocks that were on the disk already, and so were not made.
        unkept: blocks that were made to be kept on the disk, but found no room in the store.
        images: images generated.
        encoded: images encoded.
        generating_s: seconds spent on making.
    """

    blocks: int = 0
    read: int = 0
    unkept: int = 0
    images: int = 0
    encoded: int = 0
    generating_s: float = 0.0


@dataclass
class _ClassCodes:
    """The codes of one class's images ``[n_c, ...]``, of which the chunks marked in ``there`` are computed."""

    codes: torch.Tensor
    there: NDArray[np.bool_]


class BlockMaker:
    """Makes blocks from one generator over one training split.

    Not thread-safe; it owns its code cache on the generator's device.
    """

    def __init__(
        self,
        generator: Generator,
        images: NDArray[np.uint8],
        clean: NDArray[np.uint8],
        labels: NDArray[np.int64],
        seed: int,
        block_size: int,
    ) -> None:
        """Prepare to draw from a training split.

        Args:
            generator: what turns an image into a fresh draw.
            images: uint8 ``[N, C, H, W]``, 0..255; may be read-only.
            clean: uint8 ``[N, C, H, W]``, the same images before the nuisance.
            labels: int64 ``[N]``.
            seed: the stream's seed.
            block_size: draws a block.
        """
        channels, height, width = images.shape[1:]
        self.layout = Layout(block_size=block_size, image_shape=(channels, height, width))
        self.stats = MakerStats()
        self._generator = generator
        self._images, self._clean = images, clean
        self._rows = [np.flatnonzero(labels == class_index) for class_index in range(int(labels.max()) + 1)]
        self._codes: dict[int, _ClassCodes] = {}
        self._seed = seed

    @torch.inference_mode()
    def make(self, key: BlockKey) -> Block:
        """Return one block: sources uniform over the class with replacement, one fresh draw of each.

        Raises:
            StreamError: the class has no training image to draw from.
        """
        start = time.perf_counter()
        class_index, index, replicate = key
        if not 0 <= class_index < len(self._rows) or not len(self._rows[class_index]):
            raise StreamError(
                f"a draw needs a class with training images, but class {class_index} has none; "
                "leave it out of the stream or choose a profile that keeps it"
            )
        rows = self._rows[class_index]
        seed = replicate_seed(self._seed, replicate)
        places = numpy_rng(seed, "stream/sources", class_index, index).integers(len(rows), size=self.layout.block_size)
        codes = self._class_codes(class_index, places)
        rng = numpy_rng(seed, "stream/draw", class_index, index)
        images = self._generator.draw(codes[torch.from_numpy(places).to(codes.device)], rng)
        self._count(1, len(images), start)
        return Block(np.ascontiguousarray(images.numpy()), rows[places])

    @torch.inference_mode()
    def transform(
        self, images: NDArray[np.uint8], clean: NDArray[np.uint8], name: str, index: int = 0
    ) -> NDArray[np.uint8]:
        """Return one fresh draw for each of the given images, in fixed batches of 64.

        Args:
            images: uint8 ``[N, C, H, W]``.
            clean: uint8 ``[N, C, H, W]``, the same images before the nuisance.
            name: names the randomness together with ``index``; another index gives other draws.
            index: see ``name``.

        Returns:
            uint8 ``[N, C, H, W]``.
        """
        start = time.perf_counter()
        drawn = np.empty_like(images, order="C")
        for batch, low in enumerate(range(0, len(images), _BATCH)):
            part = slice(low, low + _BATCH)
            codes = self._encode(images[part], clean[part])
            drawn[part] = self._generator.draw(codes, numpy_rng(self._seed, name, index, batch)).numpy()
        self._count(0, len(images), start)
        return drawn

    def _class_codes(self, class_index: int, places: NDArray[np.int64]) -> torch.Tensor:
        rows = self._rows[class_index]
        entry = self._codes.get(class_index)
        for chunk in np.unique(places // _BATCH).tolist():
            if entry is not None and entry.there[chunk]:
                continue
            part = slice(chunk * _BATCH, (chunk + 1) * _BATCH)
            codes = self._encode(self._images[rows[part]], self._clean[rows[part]])
            if entry is None:
                num_chunks = -(-len(rows) // _BATCH)
                entry = _ClassCodes(codes.new_empty((len(rows), *codes.shape[1:])), np.zeros(num_chunks, bool))
                self._codes[class_index] = entry
            entry.codes[part] = codes
            entry.there[chunk] = True
        assert entry is not None
        return entry.codes

    def _encode(self, images: NDArray[np.uint8], clean: NDArray[np.uint8]) -> torch.Tensor:
        self.stats.encoded += len(images)
        return self._generator.encode(torch.tensor(images), torch.tensor(clean))

    def _count(self, blocks: int, images: int, start: float) -> None:
        self.stats.blocks += blocks
        self.stats.images += images
        self.stats.generating_s += time.perf_counter() - start


def replicate_seed(seed: int, replicate: int) -> int:
    """Return the seed of one replicate's stream: replicate 0 has the stream's own."""
    return derive_seed(seed, "stream/replicate", replicate) if replicate else seed
