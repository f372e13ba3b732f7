"""Generating: the bare decode loop, running servers read through the client, and the original way."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

import numpy as np
import torch

from gitdist.bench.card import card_measurement
from gitdist.bench.original import load_plain
from gitdist.bench.readers import Readership, Round, reading
from gitdist.bench.report import Figure, Measurement, Verdict, counted
from gitdist.bench.setting import Setting
from gitdist.bench.timing import alternate, quotients, rate, spread
from gitdist.device import set_threads
from gitdist.errors import StudyError
from gitdist.generator.kinds import load_generator
from gitdist.seeds import numpy_rng
from gitdist.spec import ResourcesSpec, Share
from gitdist.stream.launch import launch_stream
from gitdist.study.cluster.connect import cluster_nodes, connected
from gitdist.study.scheduling.packing import Node, find_capacity

NUM_READERS = (1, 2, 4, 8)
_ROUND_S = 6.0  # a side's turn takes about so long, within so many blocks of each class:
_COUNTS = (1, 64)
_WINDOW_MB = 256  # so that old rounds' blocks go and the object store does not spill
_WAITING = 0.02  # of a server's GPU: what the one that waits takes of it
_ORIGINAL_SHARE = 4  # the original way has a turn of a fourth of the images


def measure(setting: Setting) -> Measurement:
    """Compare images per second of all ways to generate, and count what servers made for how many readers.

    Raises:
        SpecError: the study's generator is no MUNIT.
        StudyError: there is no room for a server.
    """
    set_threads(setting.spec.resources.server.cpu)
    decode = _bare_loop(setting)
    count = _round_size(setting, decode)
    images = count * len(setting.tail) * setting.spec.stream.block_size
    rounds: dict[str, list[Round]] = {}
    with ExitStack() as stack:
        sides = {"bare loop": rate(lambda: decode(images), setting.serving.device)}
        sides |= _served(setting, count, rounds, stack)
        sides["original way"] = rate(_original_loop(setting, max(1, images // _ORIGINAL_SHARE)), setting.serving.device)
        setting.say(f"generating {images:,} images a turn")
        rates = alternate(sides, setting.repeats)
    found = _measurement(setting, rates, rounds)
    card = card_measurement(setting)
    return Measurement(figures=found.figures + card.figures, verdicts=found.verdicts, notes=found.notes + card.notes)


def _bare_loop(setting: Setting) -> Callable[[int], int]:
    """Return a loop that decodes at least so many images from ready codes, in blocks, and returns how many.

    Compiled where the servers' decoder is.
    """
    dataset, size = setting.dataset, setting.spec.stream.block_size
    compute, batch_size = setting.serving, size if setting.spec.stream.compile else None
    generator = load_generator(setting.munit, dataset, setting.artefact, compute, batch_size)
    batch = _batch(setting)
    codes = generator.encode(batch, batch)

    def decode(images: int) -> int:
        turns = -(-images // size)
        for index in range(turns):
            generator.draw(codes, numpy_rng(0, "bench/draw", index))
        return turns * size

    return decode


def _original_loop(setting: Setting, images: int) -> Callable[[], int]:
    device, size = setting.serving.device, setting.spec.stream.block_size
    network = load_plain(setting.munit, setting.dataset.image_shape[0], setting.artefact, device)
    batch = _batch(setting).to(device).float() / 255

    def transform() -> int:
        turns = -(-images // size)
        for _ in range(turns):
            network.transform(batch)
        return turns * size

    return transform


def _batch(setting: Setting) -> torch.Tensor:
    """Return as many images as a block has, uint8 ``[block_size, C, H, W]``."""
    train = setting.dataset.train.images
    return torch.from_numpy(train[np.arange(setting.spec.stream.block_size) % len(train)])


def _round_size(setting: Setting, decode: Callable[[int], int]) -> int:
    """Return the blocks of each class that make a turn about as long as it should be."""
    block = setting.spec.stream.block_size
    decode(block)
    speed = rate(lambda: decode(block), setting.serving.device)()
    least, most = _COUNTS
    return min(most, max(least, round(_ROUND_S * speed / (block * len(setting.tail)))))


def _served(
    setting: Setting, count: int, rounds: dict[str, list[Round]], stack: ExitStack
) -> dict[str, Callable[[], float]]:
    """Return a side for each number of readers of one server, and one for two servers where there is room for them.

    Args:
        setting: the study.
        count: blocks of each class a turn.
        rounds: each side's rounds are added here.
        stack: ends servers and readers.

    Raises:
        StudyError: there is no room for a server.
    """
    share = setting.spec.resources.server
    stack.enter_context(connected("local", ResourcesSpec(server=share), 3))
    sides = {}
    for num_servers in numbers_with_room(cluster_nodes(), share):
        config = setting.server_config(window_mb=_WINDOW_MB)
        launched = launch_stream(f"bench-{num_servers}", config, loaded_share(share, num_servers), num_servers)
        handle = stack.enter_context(launched)
        most = max(NUM_READERS) if num_servers == 1 else 1
        setting.say(f"starting {num_servers} server(s) and {most} reader(s)")
        classes = setting.dataset.num_classes
        readership = stack.enter_context(reading(handle, most, classes, setting.tail, config.stream, count))
        for num_readers in NUM_READERS if num_servers == 1 else (1,):
            name = _side_name(num_servers, num_readers)
            sides[name] = _round_rate(readership, num_readers, rounds.setdefault(name, []))
    return sides


def _round_rate(readership: Readership, num_readers: int, rounds: list[Round]) -> Callable[[], float]:
    def side() -> float:
        rounds.append(readership.round(num_readers))
        return rounds[-1].taken / rounds[-1].elapsed_s

    return side


def numbers_with_room(nodes: Sequence[Node], share: Share) -> tuple[int, ...]:
    """Return the numbers of servers, 1 or 1 and 2, that a cluster has room for.

    Args:
        nodes: of the cluster, with nothing on them.
        share: what each server takes.

    Raises:
        StudyError: not even one fits.
    """
    find_capacity(nodes, ResourcesSpec(server=share), 1)
    if share.gpu:
        with suppress(StudyError):
            find_capacity(nodes, ResourcesSpec(server=share), 2)
            return 1, 2
        return (1,)
    return (1, 2) if 2 * max(1.0, share.cpu) <= len(os.sched_getaffinity(0)) else (1,)


def loaded_share(share: Share, num_servers: int) -> Share:
    """Return what Ray is told that each of one or two servers takes: together as much GPU as two of ``share``.

    All three are loaded at once, but the lone one waits while the two generate.
    """
    gpu = min(1.0, share.gpu)  # a server computes on one
    return share.model_copy(update={"gpu": gpu * (_WAITING if num_servers == 1 else 1 - _WAITING)})


def own_cards(share: Share) -> bool:
    """Tell whether two servers of this share lie on a GPU each; smaller ones may be put on the same."""
    return loaded_share(share, 2).gpu > 1 / 2


def _measurement(setting: Setting, rates: dict[str, list[float]], rounds: dict[str, list[Round]]) -> Measurement:
    alone = _side_name(1, 1)
    fast = setting.serving.bf16
    figures = [Figure(name=name, spread=spread(values), unit="images/s") for name, values in rates.items()]
    counted = {name: all_rounds[-setting.repeats :] for name, all_rounds in rounds.items()}
    figures += [
        Figure(
            name=f"making, {name}",
            spread=spread(100 * each.making_s / each.elapsed_s for each in found),
            unit="% of time",
        )
        for name, found in counted.items()
    ]
    verdicts = [
        Verdict(
            name=f"made / read: {name}",
            spread=spread(each.generated / each.taken for each in found),
            rule="==",
            target=1.0,
        )
        for name, found in counted.items()
    ]
    verdicts += [
        Verdict(
            name=f"{name} / bare loop",
            spread=spread(quotients(rates[name], rates["bare loop"])),
            rule=">=",
            target=0.95,
        )
        for name in (_side_name(1, num_readers) for num_readers in NUM_READERS)
    ]
    verdicts.append(
        Verdict(
            name=f"{alone} / original way",
            spread=spread(quotients(rates[alone], rates["original way"])),
            rule=">=",
            target=4.0 if fast else 1.4,
        )
    )
    notes = []
    if _side_name(2, 1) in rates:
        share = setting.spec.resources.server
        doubled = spread(quotients(rates[_side_name(2, 1)], rates[alone]))
        target = 1.8 if own_cards(share) else None
        verdicts.append(Verdict(name="2 servers / 1 server", spread=doubled, rule=">=", target=target))
        if share.gpu and target is None:
            notes.append("2 servers have no target: with their share of a GPU they may lie on the same one")
    else:
        notes.append("2 servers are left out: there is no room for them in cores or GPUs")
    return Measurement(figures=tuple(figures), verdicts=tuple(verdicts), notes=tuple(notes))


def _side_name(num_servers: int, num_readers: int) -> str:
    return f"{counted(num_servers, 'server')}, {counted(num_readers, 'reader')}"
