"""64 readers on one router at once: each gets every draw once and in order, and no block is made twice."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from gitdist.spec import OracleSpec, StreamSpec
from gitdist.stream.client import BlockClient
from gitdist.stream.draw_stream import BlockSource, DrawStream, LocalBlocks
from gitdist.stream.server import ServerConfig
from tests.stream.streams import keys_of, running

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

PROCESSES, THREADS, TAKEN, SIZE, AHEAD = 4, 16, 4, 20, 2


def draws_by_class(source: BlockSource, seed: int) -> list[str]:
    """Take all draws of the first blocks in batches of classes in random order; return a digest for each class."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(10), TAKEN * SIZE))
    stream = DrawStream(source, 10, AHEAD)
    digests = [hashlib.sha256() for _ in range(10)]
    for batch in np.array_split(labels, 40):
        for label, image in zip(batch, stream.take(batch), strict=True):
            digests[label].update(image.tobytes())
    return [digest.hexdigest() for digest in digests]


class Readers:
    """Some readers of one process, each with a client of its own; run as a Ray actor."""

    def __init__(self, router: str) -> None:
        self._clients = [BlockClient(router) for _ in range(THREADS)]

    def read(self, seeds: Sequence[int]) -> list[list[str]]:
        with ThreadPoolExecutor(THREADS) as threads:
            return list(threads.map(draws_by_class, self._clients, seeds))


def test_no_draw_is_lost_or_doubled_among_64_readers_that_come_at_once(digits_directory: Path) -> None:
    stream = StreamSpec(block_size=SIZE, lookahead=AHEAD)
    config = ServerConfig(dataset=digits_directory, generator=OracleSpec(), artifact=None, stream=stream)
    with running(config, 2) as handle:
        actor: Any = ray.remote(num_cpus=0)(Readers)
        processes = [actor.remote(handle.router_name) for _ in range(PROCESSES)]
        parts = ray.get(
            [each.read.remote(range(THREADS * at, THREADS * (at + 1))) for at, each in enumerate(processes)]
        )
        router, servers = handle.stats()
    found = [digests for part in parts for digests in part]
    alone = draws_by_class(LocalBlocks(config.build_maker()), seed=0)
    assert len(found) == 64 and all(digests == alone for digests in found)
    assert (
        router.blocks
        == sum(server.done.blocks for server in servers)
        == len(keys_of(range(10), range(TAKEN + 1 + AHEAD)))
    )
