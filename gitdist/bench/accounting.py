"""Where a study's time goes: how much cheaper sharing can make it, and how long nobody computed."""

from collections.abc import Iterable

Interval = tuple[float, float]
"""Start and end, unix time in seconds."""


def sharing_bound(trials: int, shared: float, generation: float) -> float:
    """Return how many times cheaper sharing makes a study of equal trials, if sharing itself costs nothing.

    Off, each of T trials trains and generates: ``T (1 + g)``. On, the shared part f is trained once, the rest of each
    trial by itself, and the draws are made once: ``f + (1 - f) T + g``. The unit is one trial's training.

    Args:
        trials: T.
        shared: f, the part of a trial's training that is the same in all, 0..1.
        generation: g, the generation of one trial's draws.
    """
    return trials * (1 + generation) / (shared + (1 - shared) * trials + generation)


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
