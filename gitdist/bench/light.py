"""Many light readers on one router: how long each waits for a block that is there already.

    process 1 .. P, in each the threads of some readers:    get one block -> pause -> get one block -> ...

Readers come when they like, as trials do that train between their batches; the pauses keep the router from being busy
all the time, so that what is told is what a reader waits for and not how much the router can do at most.
"""

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from gitdist.device import set_threads
from gitdist.stream.blocks import BlockKey
from gitdist.stream.client import BlockClient

READERS = 64
PROCESSES = 8
_FETCHES = 25  # by each reader in a turn
_PAUSE_S = 0.5  # between two of them, on average


class LightReaders:
    """Several readers, each with a client and a thread of its own; run as a Ray actor."""

    def __init__(self, router: str, classes: Sequence[int], blocks: int, readers: int, seed: int) -> None:
        """Connect so many readers.

        Args:
            router: name of the stream's router.
            classes: classes that are read.
            blocks: blocks of each class that are there.
            readers: how many.
            seed: of the pauses and of the order of the classes.
        """
        set_threads(1)
        self._classes, self._blocks = classes, blocks
        self._rngs = [random.Random(f"{seed}/{reader}") for reader in range(readers)]
        self._clients = [BlockClient(router) for _ in range(readers)]
        self._threads = ThreadPoolExecutor(readers)

    def fetch_times(self) -> list[float]:
        """Let all readers fetch at once; return the milliseconds of every fetch."""
        parts = self._threads.map(self._fetch, self._clients, self._rngs)
        return [each for part in parts for each in part]

    def _fetch(self, client: BlockClient, rng: random.Random) -> list[float]:
        times = []
        for fetch in range(_FETCHES):
            time.sleep(rng.uniform(0, 2 * _PAUSE_S))
            # Backwards: what comes after a block is fetched with it, and would not be waited for.
            key = BlockKey(rng.choice(self._classes), self._blocks - 1 - fetch)
            started = time.perf_counter()
            client.get([key])
            times.append(1000 * (time.perf_counter() - started))
            client.release([key])
        return times
