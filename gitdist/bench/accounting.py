"""Where a study's time goes: how much less work sharing leaves, and how long nobody computed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Interval = tuple[float, float]
"""Start and end, unix time in seconds."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kind of a study's work: its seconds, in all processes together, and how often it was done."""

    seconds: float
    times: int


def work_ratio(alone: Mapping[str, Work], shared: Mapping[str, Work]) -> float:
    """Return how many times less work sharing leaves, if sharing itself costs nothing.

    Each kind k of work costs what it cost without sharing, s_k seconds for n_k times; with sharing it is done n'_k
    times: ``sum s_k / sum (s_k n'_k / n_k)``.

    Args:
        alone: the work of a study without sharing, by its kind.
        shared: that of the same study with sharing, of the same kinds; its seconds are not read.
    """
    left = sum(each.seconds * shared[kind].times / each.times for kind, each in alone.items() if each.times)
    return sum(each.seconds for each in alone.values()) / left


def busy_s(intervals: Iterable[Interval], window: Interval) -> float:
    """Return the seconds of ``window`` that lie in at least one of the intervals."""
    start, end = window
    total, reached = 0.0, start
    for low, high in sorted(intervals):
        low, high = max(low, reached), min(high, end)
        if high > low:
            total += high - low
            reached = high
    return total


def overhead_s(intervals: Iterable[Interval], window: Interval, trials: int) -> float:
    """Return the seconds a trial in which nothing was trained, generated or evaluated anywhere.

    Args:
        intervals: when something was; they may overlap, as trials do.
        window: the whole study, its command's start and end included.
        trials: of the study.
    """
    return (window[1] - window[0] - busy_s(intervals, window)) / trials
