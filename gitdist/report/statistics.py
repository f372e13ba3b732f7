"""Means over replicates with their 95 % interval, paired differences, and rank correlation."""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

_CONFIDENCE = 0.95

K = TypeVar("K")


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` replicates; ``half`` is half the width of its 95 % interval, None for one replicate.

    ``limits`` are the least and the largest value that there can be, where the interval is cut off.
    """

    mean: float
    half: float | None
    n: int
    limits: tuple[float, float] | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the interval within the limits; None for one replicate."""
        if self.half is None:
            return None
        least, largest = self.limits or (-math.inf, math.inf)
        return max(self.mean - self.half, least), min(self.mean + self.half, largest)

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval is on one side of zero; without an interval nothing is said, so it is not."""
        return self.half is not None and abs(self.mean) > self.half


def interval(values: Sequence[float] | NDArray[np.float64], limits: tuple[float, float] | None = None) -> Interval:
    """Return mean and 95 % interval (Student's t) of independent replicates.

    Args:
        values: one number a replicate, at least one.
        limits: between which all numbers of the kind lie.
    """
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    half = None if n < 2 else t_bound(n - 1) * float(array.std(ddof=1)) / math.sqrt(n)
    return Interval(float(array.mean()), half, n, limits)


def paired(
    one: Mapping[K, float], other: Mapping[K, float], matches: Callable[[K, K], bool] = operator.eq
) -> Interval | None:
    """Return the mean of ``one - other`` over pairs of replicates, with its interval; None without any.

    Args:
        one: values by replicate.
        other: values by replicate.
        matches: whether two replicates are a pair.
    """
    differences = [one[key] - other[match] for key in one for match in other if matches(key, match)]
    return interval(differences) if differences else None


@cache
def t_bound(freedom: int) -> float:
    """Return t such that a Student variable lies between -t and t with probability 0.95.

    By bisection of the finite sums for whole degrees of freedom (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).

    Args:
        freedom: degrees of freedom, at least 1.
    """
    low, high = 0.0, 16.0  # 12.7 for one degree of freedom, less for more
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < _CONFIDENCE else (low, middle)
    return high


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation over the places where both have a number; NaN where one is constant.

    Args:
        x: float64 ``[N]``.
        y: float64 ``[N]``.
    """
    both = ~(np.isnan(x) | np.isnan(y))
    if not both.any():
        return math.nan
    ranks = np.stack([average_ranks(x[both]), average_ranks(y[both])])
    centred = ranks - ranks.mean(1, keepdims=True)
    norms = np.sqrt((centred**2).sum(1))
    return float(centred[0] @ centred[1] / norms.prod()) if norms.all() else math.nan


def average_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks 1..N of values, equal ones sharing the mean of theirs, float64 ``[N]``."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    means: NDArray[np.float64] = (last - (counts - 1) / 2)[place]
    return means


def _within(t: float, freedom: int) -> float:
    """Return the probability that a Student variable lies between -t and t."""
    angle = math.atan2(t, math.sqrt(freedom))
    sine, square = math.sin(angle), math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for index in range(freedom // 2):
        total += term
        step = 2 * index + 1 + odd
        term *= square * step / (step + 1)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
