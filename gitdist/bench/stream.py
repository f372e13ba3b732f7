"""Transport: what each hop of a batch's draws costs a reader once the blocks exist, and what 64 light readers wait.

    router call -> object store get -> DrawStream.take          each alone, and then all together through BlockClient

Blocks repeat training images: they are made at once, and what made an image does not change what moving it costs.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import ray

from gitdist.bench.light import PROCESSES, READERS, LightReaders
from gitdist.bench.readers import BATCH, batches
from gitdist.bench.ready import ReadyBlocks
from gitdist.bench.report import Figure, Measurement, Verdict, counted
from gitdist.bench.setting import Setting
from gitdist.bench.timing import Spread, alternate, spread
from gitdist.device import set_threads
from gitdist.spec import IdentitySpec, ResourcesSpec, StreamSpec
from gitdist.stream.blocks import Block, BlockKey, BlockLayout
from gitdist.stream.client import BlockClient
from gitdist.stream.draw_stream import BlockSource, DrawStream
from gitdist.stream.launch import launch_stream
from gitdist.stream.router import BlockRef
from gitdist.stream.server import ServerConfig
from gitdist.study.cluster.connect import connected

NUM_READERS = (1, 4)
HOPS = ("router call", "object store get", "DrawStream.take", "all together")
_COUNT = 64  # blocks of each class
_PORTION = 16  # blocks of each class asked for at once, as by a client that is behind others


class HopReader:
    """Measures its own hops, over the same blocks each; run as a Ray actor."""

    def __init__(self, router: str, num_classes: int, classes: Sequence[int], stream: StreamSpec) -> None:
        """Have all blocks made, and keep them."""
        set_threads(1)
        self._router: Any = ray.get_actor(router)
        self._num_classes, self._classes, self._spec = num_classes, classes, stream
        self._held: dict[int, list[Block]] = {class_index: [] for class_index in classes}
        for portion in self._portions():
            answer: list[BlockRef[Any]] = ray.get(self._router.refs.remote(portion))
            for found in answer:
                self._held[found.key.class_index].append(ray.get(found.reference))

    def measure(self, hop: str) -> float:
        """Return the milliseconds of one hop for the draws of a batch."""
        ways: tuple[Callable[[], float], ...] = (self._routing, self._getting, self._taking, self._all_together)
        return 1000 * ways[HOPS.index(hop)]()

    def _routing(self) -> float:
        started = time.perf_counter()
        for portion in self._portions():
            ray.get(self._router.refs.remote(portion))
        return (time.perf_counter() - started) / self._num_batches(_COUNT)

    def _getting(self) -> float:
        portions = [ray.get(self._router.refs.remote(portion)) for portion in self._portions()]
        started = time.perf_counter()
        for portion in portions:
            ray.get([found.reference for found in portion])
        return (time.perf_counter() - started) / self._num_batches(_COUNT)

    def _taking(self) -> float:
        images = self._held[self._classes[0]][0].images
        channels, height, width = images.shape[1:]
        layout = BlockLayout(block_size=len(images), image_shape=(channels, height, width))
        return self._read(ReadyBlocks(layout, self._held))

    def _all_together(self) -> float:
        client = BlockClient(self._router)
        try:
            return self._read(client)
        finally:
            client.close()

    def _read(self, source: BlockSource) -> float:
        ahead = self._spec.lookahead
        count = _COUNT - ahead - 1  # what is asked for ahead exists as well
        stream = DrawStream(source, self._num_classes, ahead)
        all_labels = batches(self._classes, count * self._spec.block_size)
        started = time.perf_counter()
        for labels in all_labels:
            stream.take(labels)
        return (time.perf_counter() - started) / self._num_batches(count)

    def _num_batches(self, count: int) -> int:
        return len(batches(self._classes, count * self._spec.block_size))

    def _portions(self) -> Iterator[list[BlockKey]]:
        for start in range(0, _COUNT, _PORTION):
            yield [BlockKey(index, block) for block in range(start, start + _PORTION) for index in self._classes]


def measure(setting: Setting) -> Measurement:
    """Measure milliseconds a batch of 64 draws and MB per second, for 1 and 4 readers at once."""
    spec = setting.spec
    stream = spec.stream.model_copy(update={"lookahead": min(spec.stream.lookahead, _PORTION)})
    config = ServerConfig(
        dataset=setting.dataset.directory, generator=IdentitySpec(), artefact=None, stream=stream, device="cpu"
    )
    share = spec.resources.server.model_copy(update={"gpu": 0.0})
    with connected("local", ResourcesSpec(server=share), 1), launch_stream("bench-stream", config, share) as handle:
        setting.say(f"starting {max(NUM_READERS)} readers of {_COUNT} blocks of {len(setting.tail)} classes")
        actor: Any = ray.remote(num_cpus=0)(HopReader)
        arguments = (handle.router_name, setting.dataset.num_classes, setting.tail, stream)
        readers = [actor.remote(*arguments) for _ in range(max(NUM_READERS))]
        ray.get([reader.measure.remote(HOPS[0]) for reader in readers])
        sides = {
            _name(hop, num_readers): partial(_mean_time, readers[:num_readers], hop)
            for num_readers in NUM_READERS
            for hop in HOPS
        }
        times = alternate(sides, setting.repeats)
        setting.say(f"starting {READERS} light readers in {PROCESSES} processes")
        waits = _light_waits(handle.router_name, setting)
    return _measurement(setting, times, waits)


def _light_waits(router: str, setting: Setting) -> list[list[float]]:
    """Return the milliseconds of all fetches of 64 light readers, a list each repeat."""
    actor: Any = ray.remote(num_cpus=0)(LightReaders)
    arguments = (router, setting.tail, _COUNT, READERS // PROCESSES)
    processes = [actor.remote(*arguments, seed) for seed in range(PROCESSES)]

    def wait() -> list[float]:
        parts: list[list[float]] = ray.get([process.fetch_times.remote() for process in processes])
        return [each for part in parts for each in part]

    return alternate({"": wait}, setting.repeats)[""]


def _mean_time(readers: Sequence[Any], hop: str) -> float:
    times: list[float] = ray.get([reader.measure.remote(hop) for reader in readers])
    return sum(times) / len(times)


def _measurement(setting: Setting, times: dict[str, list[float]], waits: Sequence[Sequence[float]]) -> Measurement:
    batch_bytes = BATCH * setting.dataset.train.images[0].nbytes
    figures, verdicts = [], []
    for name, values in times.items():
        figures.append(Figure(name=name, spread=spread(values), unit="ms a batch"))
        figures.append(Figure(name=name, spread=_megabytes_per_s(values, batch_bytes), unit="MB/s"))
    for percentile in (50, 99):
        values = [float(np.percentile(each, percentile)) for each in waits]
        name = f"a ready block, {counted(READERS, 'light reader')}, p{percentile}"
        figures.append(Figure(name=name, spread=spread(values), unit="ms"))
    for num_readers in NUM_READERS:
        whole = _name("all together", num_readers)
        verdicts.append(Verdict(name=whole, spread=spread(times[whole]), rule="<=", target=0.25, unit="ms"))
    return Measurement(figures=tuple(figures), verdicts=tuple(verdicts))


def _megabytes_per_s(times_ms: Sequence[float], batch_bytes: int) -> Spread:
    return spread(batch_bytes / each / 1000 for each in times_ms)


def _name(hop: str, num_readers: int) -> str:
    return f"{hop}, {counted(num_readers, 'reader')}"
