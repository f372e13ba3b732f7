"""Timing rules: the compared sides take turns, after a warm-up that does not count; what is told is median and spread.

warm-up: A B C      repeats: B C A   C A B   A B C      ratios: A / B of each repeat, so both saw the same machine

Each round starts with the next side, so that none always comes after the same other one.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

Name = TypeVar("Name")
Found = TypeVar("Found")

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


def alternate(sides: Mapping[Name, Callable[[], Found]], repeats: int, warm_ups: int = 1) -> dict[Name, list[Found]]:
    """Return what each side found, once a repeat; in every repeat all sides take their turn.

    Args:
        sides: what is compared, by name; the first round is in their order.
        repeats: findings wanted of each.
        warm_ups: rounds before the first that counts.
    """
    rounds = [_round(sides, index % len(sides)) for index in range(warm_ups + repeats)]
    return {name: [found[name] for found in rounds[warm_ups:]] for name in sides}


def _round(sides: Mapping[Name, Callable[[], Found]], first: int) -> dict[Name, Found]:
    names = list(sides)
    return {name: sides[name]() for name in names[first:] + names[:first]}


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
