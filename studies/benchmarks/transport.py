"""What reading a stream costs once its blocks exist: 1 and 4 busy readers, and 64 light clients on one router.

A busy reader takes batches of 64 draws as fast as they come (router call, object store, ``DrawStream.take``). Light
clients (8 processes of 8 threads, each with a client) fetch one block, pause, fetch the next one, as trials do that
train between their batches; the pauses keep the router from being busy all the time, so that the figure is the wait of
a client and not the router's limit. Blocks are repeated training images, which are made at once.

    python studies/benchmarks/transport.py [--study FILE] [--set FIELD=VALUE] [--repeats N]
"""

import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import ray
from generation import BATCH, batches
from harness import Figure, Setting, alternate, counted, parser, run, say

from gitdist.device import set_threads
from gitdist.spec import IdentitySpec, ResourcesSpec, StreamSpec
from gitdist.stream.blocks import BlockKey
from gitdist.stream.client import BlockClient
from gitdist.stream.draw_stream import DrawStream
from gitdist.stream.launch import launch_stream
from gitdist.stream.server import ServerConfig
from gitdist.study.cluster.connect import connected

NUM_READERS = (1, 4)
NUM_BLOCKS = 64  # of each class
LIGHT_PROCESSES, LIGHT_THREADS = 8, 8
LIGHT_FETCHES = 25  # by each light client in a turn
LIGHT_PAUSE_S = 0.5  # between two of them, on average
TARGET_MS = 0.25


class BusyReader:
    """Reads all blocks anew in each turn, by a new client; run as a Ray actor."""

    def __init__(self, router: str, num_classes: int, classes: Sequence[int], stream: StreamSpec) -> None:
        set_threads(1)
        self._router: Any = ray.get_actor(router)
        self._num_classes, self._classes, self._spec = num_classes, classes, stream

    def batch_ms(self) -> float:
        """Return the milliseconds per batch."""
        count = NUM_BLOCKS - self._spec.lookahead - 1  # what is requested ahead exists as well
        client = BlockClient(self._router)
        all_labels = batches(self._classes, count * client.layout.block_size)
        try:
            stream = DrawStream(client, self._num_classes, self._spec.lookahead)
            started = time.perf_counter()
            for labels in all_labels:
                stream.take(labels)
            return 1000 * (time.perf_counter() - started) / len(all_labels)
        finally:
            client.close()


class LightClients:
    """Several light clients, each on a thread; run as a Ray actor."""

    def __init__(self, router: str, classes: Sequence[int], seed: int) -> None:
        set_threads(1)
        self._classes = classes
        self._rngs = [random.Random(f"{seed}/{index}") for index in range(LIGHT_THREADS)]
        self._clients = [BlockClient(router) for _ in range(LIGHT_THREADS)]
        self._threads = ThreadPoolExecutor(LIGHT_THREADS)

    def fetch_ms(self) -> list[float]:
        """Let all clients fetch at once; return the milliseconds of every fetch."""
        return [each for part in self._threads.map(self._fetch, self._clients, self._rngs) for each in part]

    def _fetch(self, client: BlockClient, rng: random.Random) -> list[float]:
        times = []
        for fetch in range(LIGHT_FETCHES):
            time.sleep(rng.uniform(0, 2 * LIGHT_PAUSE_S))
            # Backwards: the blocks after a requested one are fetched with it, and would not be waited for.
            key = BlockKey(rng.choice(self._classes), NUM_BLOCKS - 1 - fetch)
            started = time.perf_counter()
            client.get([key])
            times.append(1000 * (time.perf_counter() - started))
            client.release([key])
        return times


def measure(setting: Setting) -> list[Figure]:
    """Measure milliseconds per batch of busy readers, and the waits of light clients."""
    spec, classes = setting.spec, setting.tail
    stream = spec.stream.model_copy(update={"lookahead": min(spec.stream.lookahead, NUM_BLOCKS // 4)})
    config = ServerConfig(
        dataset=setting.dataset.directory, generator=IdentitySpec(), artifact=None, stream=stream, device="cpu"
    )
    share = spec.resources.server.model_copy(update={"gpu": 0.0})
    with connected("local", ResourcesSpec(server=share), 1), launch_stream("benchmark", config, share) as handle:
        say(f"starting {max(NUM_READERS)} readers of {NUM_BLOCKS} blocks of {len(classes)} classes")
        make_blocks(handle.router_name, classes)
        actor: Any = ray.remote(num_cpus=0)(BusyReader)
        arguments = (handle.router_name, setting.dataset.num_classes, classes, stream)
        readers = [actor.remote(*arguments) for _ in range(max(NUM_READERS))]
        sides: dict[int, Callable[[], float]] = {number: partial(mean_ms, readers[:number]) for number in NUM_READERS}
        times = alternate(sides, setting.repeats)
        say(f"starting {LIGHT_PROCESSES * LIGHT_THREADS} light clients in {LIGHT_PROCESSES} processes")
        actor = ray.remote(num_cpus=0)(LightClients)
        processes = [actor.remote(handle.router_name, classes, seed) for seed in range(LIGHT_PROCESSES)]
        waits = alternate({"light": partial(all_ms, processes)}, setting.repeats)["light"]
    return figures(times, waits, BATCH * setting.dataset.train.images[0].nbytes)


def make_blocks(router: str, classes: Iterable[int]) -> None:
    """Have the server make all blocks."""
    client = BlockClient(router)
    for index in classes:
        client.get([BlockKey(index, block) for block in range(NUM_BLOCKS)])
    client.close()


def mean_ms(readers: Sequence[Any]) -> float:
    """Return the mean of the milliseconds per batch of readers that read at once."""
    return float(np.mean(ray.get([reader.batch_ms.remote() for reader in readers])))


def all_ms(processes: Sequence[Any]) -> list[float]:
    """Return the milliseconds of all fetches of all light clients."""
    parts: list[list[float]] = ray.get([process.fetch_ms.remote() for process in processes])
    return [each for part in parts for each in part]


def figures(times: dict[int, list[float]], waits: Sequence[Sequence[float]], batch_bytes: int) -> list[Figure]:
    """Return milliseconds and MB/s per number of busy readers, and the median and 99th percentile of the waits."""
    found = []
    for number, values in times.items():
        name = f"a batch of {BATCH} draws, {counted(number, 'reader')}"
        found.append(Figure(name=name, values=values, unit="ms", rule="<=", target=TARGET_MS))
        found.append(Figure(name=name, values=[batch_bytes / value / 1000 for value in values], unit="MB/s"))
    for percentile in (50, 99):
        values = [float(np.percentile(each, percentile)) for each in waits]
        name = f"wait for a ready block, {LIGHT_PROCESSES * LIGHT_THREADS} light clients, p{percentile}"
        found.append(Figure(name=name, values=values, unit="ms"))
    return found


if __name__ == "__main__":
    run(parser(__doc__, repeats=5).parse_args(), measure)
