"""Blocks that are there already: the source of a stream for measuring everything but generating."""

from collections.abc import Sequence

from gitdist.data.dataset import Dataset
from gitdist.generator.oracle import IdentityGenerator
from gitdist.stream.blocks import Block, BlockKey, BlockLayout, BlockMaker
from gitdist.stream.draw_stream import DrawStream

_BLOCKS = 4  # of each class


class ReadyBlocks:
    """An endless source that repeats a few blocks of each class; see ``BlockSource``."""

    def __init__(self, layout: BlockLayout, blocks: "dict[int, list[Block]]") -> None:
        """Serve these blocks of each class."""
        self.layout, self._blocks = layout, blocks
        self.generated, self.waited_s = 0, 0.0

    def get(self, keys: Sequence[BlockKey]) -> list[Block]:
        """Return the blocks in the order of ``keys``."""
        return [self._blocks[key.class_index][key.index % len(self._blocks[key.class_index])] for key in keys]

    def plan(self, keys: Sequence[BlockKey]) -> None:
        """Do nothing: all blocks are there."""

    def request(self, keys: Sequence[BlockKey]) -> None:
        """Do nothing: all blocks are there."""

    def release(self, keys: Sequence[BlockKey]) -> None:
        """Do nothing: all blocks stay."""

    def close(self) -> None:
        """Do nothing: there is nothing to end."""


def ready_stream(dataset: Dataset, block_size: int) -> DrawStream:
    """Return a stream over blocks of repeated training images, made here at once for all classes that have images."""
    sizes = dataset.class_sizes
    maker = BlockMaker(IdentityGenerator(), dataset.train, 0, block_size)
    blocks = {
        index: [maker.make(BlockKey(index, number)) for number in range(_BLOCKS)]
        for index in range(dataset.num_classes)
        if sizes[index]
    }
    return DrawStream(ReadyBlocks(maker.layout, blocks), dataset.num_classes, 0)
