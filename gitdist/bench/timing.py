"""Timing rules: the compared sides take turns, after a warm-up that does not count; what is told is median and spread.

warm-up: A B C      repeats: A B C   A B C   A B C      ratios: A / B of each repeat, so both saw the same machine
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

Side = Callable[[], float]
"""One side of a comparison: does its work once and returns its figure."""


@dataclass(frozen=True)
class Spread:
    """The median of a figure over the repeats, and its least and greatest value."""

    median: float
    lowest: float
    highest: float


def spread(values: Iterable[float]) -> Spread:
    """Return median, least and greatest of one figure's values, of which there must be at least one."""
    listed = list(values)
    return Spread(statistics.median(listed), min(listed), max(listed))


def alternate(sides: Mapping[str, Side], repeats: int, warm_ups: int = 1) -> dict[str, list[float]]:
    """Return the figures of each side, one a repeat; in every repeat all sides take their turn in their order.

    Args:
        sides: what is compared, by name.
        repeats: figures wanted of each.
        warm_ups: rounds before the first figure that counts.
    """
    rounds = [{name: side() for name, side in sides.items()} for _ in range(warm_ups + repeats)]
    return {name: [figures[name] for figures in rounds[warm_ups:]] for name in sides}


def quotients(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Return the ratio of each repeat."""
    return [above / below for above, below in zip(over, under, strict=True)]


def rate(work: Callable[[], int], device: torch.device) -> Side:
    """Return the side whose figure is what ``work`` returns (samples, images) per second.

    Args:
        work: does the work once and returns how much it was.
        device: its work is waited for.
    """

    def side() -> float:
        _finish(device)
        started = time.perf_counter()
        amount = work()
        _finish(device)
        return amount / (time.perf_counter() - started)

    return side


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
