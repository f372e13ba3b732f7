"""Running streams for tests, and what to ask of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import numpy as np

from gitdist.spec import Share
from gitdist.stream.blocks import Block, BlockKey
from gitdist.stream.client import BlockClient
from gitdist.stream.launch import StreamHandle, launch_stream
from gitdist.stream.server import ServerConfig

_numbers = count()


def running(config: ServerConfig, num_servers: int = 1) -> StreamHandle:
    return launch_stream(f"test-{next(_numbers)}", config, Share(cpu=0.5), num_servers)


@contextmanager
def connected(handle: StreamHandle) -> Iterator[BlockClient]:
    blocks = BlockClient(handle.router_name)
    try:
        yield blocks
    finally:
        blocks.close()


def keys_of(classes: range, indices: range) -> list[BlockKey]:
    return [BlockKey(class_index, index) for index in indices for class_index in classes]


def assert_same(blocks: list[Block], expected: list[Block]) -> None:
    for block, other in zip(blocks, expected, strict=True):
        np.testing.assert_array_equal(block.images, other.images)
        np.testing.assert_array_equal(block.sources, other.sources)
