"""Images/s of generation: the bare decode loop, servers read through the client, and the original way.

    reader 1 .. R --take(64 labels) until ``count`` blocks of each class are read--> client -> router -> server
                  and then the blocks ahead, so that nothing is left to be made at the end of a turn

All readers of a turn read the same draws, and a turn starts where the one before it ended. So the server makes
``count`` blocks per class in each turn, however many read.

    python studies/benchmarks/generation.py [--study FILE] [--set FIELD=VALUE] [--repeats N]
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from harness import Figure, Setting, alternate, counted, figures_of, parser, quotients, rate, run, say
from numpy.typing import NDArray
from original import load_plain

from gitdist.device import set_threads
from gitdist.generator.kinds import load_generator
from gitdist.seeds import numpy_rng
from gitdist.spec import ResourcesSpec, StreamSpec
from gitdist.stream.blocks import BlockKey
from gitdist.stream.client import BlockClient
from gitdist.stream.draw_stream import DrawStream
from gitdist.stream.launch import StreamHandle, launch_stream
from gitdist.stream.server import ServerConfig
from gitdist.study.cluster.connect import cluster_nodes, connected
from gitdist.study.scheduling.packing import find_capacity

NUM_READERS = (1, 2, 4, 8)
BATCH = 64  # draws taken at once: about half of a batch of 128
TURN_S = 6.0
BLOCKS_PER_TURN = (1, 64)  # of each class
WINDOW_MB = 256  # so that blocks of earlier turns are dropped and the object store does not spill
ORIGINAL_SHARE = 4  # the original way makes a fourth of the images per turn


def batches(classes: Sequence[int], draws: int) -> list[NDArray[np.int64]]:
    """Return the labels of batches that take ``draws`` of each class, all classes in turn."""
    labels = np.tile(np.asarray(classes, np.int64), draws)
    return [labels[start : start + BATCH] for start in range(0, len(labels), BATCH)]


class Reader:
    """Takes draws as fast as they come; run as a Ray actor."""

    def __init__(self, router: str, num_classes: int, classes: Sequence[int], stream: StreamSpec) -> None:
        set_threads(1)
        self._classes, self._spec = classes, stream
        self._blocks = BlockClient(router)
        self._stream = DrawStream(self._blocks, num_classes, stream.lookahead)

    def read(self, first: int, count: int) -> int:
        """Take the draws of blocks ``first`` to ``first + count`` of each class; return the number of images."""
        size, before = self._blocks.layout.block_size, self._stream.draws
        self._stream.cursors = np.full(len(self._stream.cursors), first * size)
        for labels in batches(self._classes, count * size):
            self._stream.take(labels)
        ahead = range(first + count, first + count + self._spec.lookahead + 1)
        self._blocks.get([BlockKey(class_index, index) for class_index in self._classes for index in ahead])
        return self._stream.draws - before


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of some readers: images generated and seconds spent on them by servers, images per reader, duration."""

    generated: int
    generating_s: float
    taken: int
    elapsed_s: float


class Readers:
    """The readers of a running stream."""

    def __init__(self, handle: StreamHandle, setting: Setting, stream: StreamSpec, count: int) -> None:
        """Start the readers and let all of them read the first ``count`` blocks of each class."""
        actor: Any = ray.remote(num_cpus=0)(Reader)
        arguments = (handle.router_name, setting.dataset.num_classes, setting.tail, stream)
        self._readers = [actor.remote(*arguments) for _ in range(max(NUM_READERS))]
        self._handle, self._count = handle, count
        self._position = 0
        self.turns: dict[int, list[Turn]] = {number: [] for number in NUM_READERS}
        self.read(max(NUM_READERS))

    def read(self, num_readers: int) -> float:
        """Let some of the readers read the next blocks; return images/s of one reader."""
        images, generating_s = self._generated()
        started = time.perf_counter()
        readers = self._readers[:num_readers]
        taken = ray.get([reader.read.remote(self._position, self._count) for reader in readers])
        elapsed_s = time.perf_counter() - started
        self._position += self._count
        assert len(set(taken)) == 1, "readers of one turn take the same draws"
        images_now, generating_now_s = self._generated()
        turn = Turn(
            generated=images_now - images,
            generating_s=generating_now_s - generating_s,
            taken=taken[0],
            elapsed_s=elapsed_s,
        )
        self.turns[num_readers].append(turn)
        return turn.taken / turn.elapsed_s

    def _generated(self) -> tuple[int, float]:
        servers = [server.done for server in self._handle.stats()[1]]
        return sum(done.images for done in servers), sum(done.generating_s for done in servers)


def measure(setting: Setting) -> list[Figure]:
    """Compare images/s, and count what the server made per image read."""
    share = setting.spec.resources.server
    set_threads(share.cpu)
    decode = bare_loop(setting)
    count = blocks_per_turn(setting, decode)
    images = count * len(setting.tail) * setting.block_size
    stream = setting.spec.stream.model_copy(update={"window_mb": WINDOW_MB})
    config = ServerConfig(
        dataset=setting.dataset.directory,
        generator=setting.munit,
        artifact=setting.artifact,
        stream=stream,
        device=setting.spec.resources.server.device,
    )
    say(f"starting a server and {counted(max(NUM_READERS), 'reader')}; {images:,} images per turn")
    resources = ResourcesSpec(server=share)
    with connected("local", resources, 1):
        find_capacity(cluster_nodes(), resources, 1)
        with launch_stream("benchmark", config, share) as handle:
            readers = Readers(handle, setting, stream, count)
            sides: dict[str, Callable[[], float]] = {"bare loop": rate(partial(decode, images), setting.serving.device)}
            sides |= {name_of(number): partial(readers.read, number) for number in NUM_READERS}
            original = original_loop(setting, max(1, images // ORIGINAL_SHARE))
            sides["original way"] = rate(original, setting.serving.device)
            rates = alternate(sides, setting.repeats)
    turns = {number: found[-setting.repeats :] for number, found in readers.turns.items()}
    return figures(rates, turns, setting.serving.bf16)


def bare_loop(setting: Setting) -> Callable[[int], int]:
    """Return a function that decodes at least n images from prepared codes, in blocks, as the servers do."""
    size, compile_ = setting.block_size, setting.spec.stream.compile
    generator = load_generator(
        setting.munit, setting.dataset, setting.artifact, setting.serving, size if compile_ else None
    )
    images = one_block(setting)
    codes = generator.encode(images, images)

    def decode(count: int) -> int:
        num_blocks = -(-count // size)
        for index in range(num_blocks):
            generator.draw(codes, numpy_rng(0, "bench/draw", index))
        return num_blocks * size

    return decode


def original_loop(setting: Setting, count: int) -> Callable[[], int]:
    """Return a loop that encodes and decodes at least ``count`` images in the original way."""
    device, size = setting.serving.device, setting.block_size
    network = load_plain(setting.munit, setting.dataset.image_shape[0], setting.artifact, device)
    images = one_block(setting).to(device).float() / 255

    def transform() -> int:
        num_blocks = -(-count // size)
        for _ in range(num_blocks):
            network.transform(images)
        return num_blocks * size

    return transform


def one_block(setting: Setting) -> torch.Tensor:
    """Return as many images as a block has, uint8 ``[block_size, C, H, W]``."""
    train = setting.dataset.train.images
    return torch.from_numpy(train[np.arange(setting.block_size) % len(train)])


def blocks_per_turn(setting: Setting, decode: Callable[[int], int]) -> int:
    """Return the blocks of each class that take about ``TURN_S`` to decode."""
    block = setting.block_size
    decode(block)
    speed = rate(partial(decode, block), setting.serving.device)()
    lowest, highest = BLOCKS_PER_TURN
    return min(highest, max(lowest, round(TURN_S * speed / (block * len(setting.tail)))))


def figures(rates: dict[str, list[float]], turns: dict[int, list[Turn]], bf16: bool) -> list[Figure]:
    """Return all figures: images/s, the time that the server generates, images made per image read, and ratios."""
    found = figures_of(rates, "images/s")
    for number, some in turns.items():
        busy = [100 * turn.generating_s / turn.elapsed_s for turn in some]
        found.append(Figure(name=f"generating, {name_of(number)}", values=busy, unit="% of time"))
    for number, some in turns.items():
        made = [turn.generated / turn.taken for turn in some]
        found.append(Figure(name=f"generated / read, {name_of(number)}", values=made, rule="==", target=1.0))
    for number in turns:
        over_bare = quotients(rates[name_of(number)], rates["bare loop"])
        found.append(Figure(name=f"{name_of(number)} / bare loop", values=over_bare, target=0.95))
    over_original = quotients(rates[name_of(1)], rates["original way"])
    found.append(Figure(name="server / original way", values=over_original, target=4.0 if bf16 else 1.4))
    return found


def name_of(num_readers: int) -> str:
    """Return the name of the side with ``num_readers`` readers."""
    return f"server, {counted(num_readers, 'reader')}"


if __name__ == "__main__":
    run(parser(__doc__, repeats=3).parse_args(), measure)
