"""The values that travel through a stream: a block's name, the block, and what all blocks share."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SHARED_FROM_BYTES = 100 * 1024  # Ray sends smaller results through the caller's process, here the router: twice as dear


class Lane(NamedTuple):
    """An endless sequence of blocks: one class of one replicate's stream."""

    class_index: int
    replicate: int = 0


class BlockKey(NamedTuple):
    """The name of a block: draws ``index * block_size`` up to ``(index + 1) * block_size`` of one lane.

    Replicates are independent streams over the same images; replicate 0 is the stream of all who name none.
    """

    class_index: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which no key needs
    replicate: int = 0

    @property
    def lane(self) -> Lane:
        """The sequence that the block belongs to."""
        return Lane(self.class_index, self.replicate)


@dataclass(frozen=True)
class Block:
    """Consecutive draws of one class; read-only where it comes from an object store.

    Attributes:
        images: uint8 ``[block_size, C, H, W]``, 0..255.
        sources: int64 ``[block_size]``, the training row that each image was drawn from.
        ballast: uint8, no content; makes a small block large enough for shared memory.
    """

    images: NDArray[np.uint8]
    sources: NDArray[np.int64]
    ballast: NDArray[np.uint8] | None = None


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What all blocks of a stream have in common: draws a block and image shape ``(C, H, W)``."""

    block_size: int
    image_shape: tuple[int, int, int]

    @property
    def block_bytes(self) -> int:
        """The size of a block without ballast, in bytes."""
        channels, height, width = self.image_shape
        return self.block_size * (channels * height * width + 8)

    @property
    def ballast_bytes(self) -> int:
        """The bytes a block lacks to be sent through shared memory."""
        return max(0, SHARED_FROM_BYTES - self.block_bytes)


@dataclass(frozen=True, kw_only=True)
class Product:
    """What the servers of a stream make, each the same.

    Attributes:
        layout: block size and image shape.
        draws: everything that determines the draws; see ``kept.draw_spec``.
        block_key: the name of the folder of all blocks that are equal to theirs.
    """

    layout: Layout
    draws: Mapping[str, Any]
    block_key: str


class Span(NamedTuple):
    """The blocks ``start`` up to, not including, ``stop`` of one lane."""

    lane: Lane
    start: int
    stop: int

    def keys(self) -> list[BlockKey]:
        """Return the blocks' names in order."""
        class_index, replicate = self.lane
        return [BlockKey(class_index, index, replicate) for index in range(self.start, self.stop)]
