"""Means over replicates with their 95 % interval, paired differences, and rank correlation."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import stats

_CONFIDENCE = 0.95

Key = TypeVar("Key")


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` replicates with its 95 % interval: ``mean ± half_width``; no interval if n = 1.

    ``limits`` are the smallest and largest possible value, at which the interval is cut off.
    """

    mean: float
    half_width: float | None
    n: int
    limits: tuple[float, float] | None = None

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends of the interval, within the limits."""
        if self.half_width is None:
            return None
        low, high = self.limits or (-math.inf, math.inf)
        return max(self.mean - self.half_width, low), min(self.mean + self.half_width, high)


def interval(values: Sequence[float] | NDArray[np.float64], limits: tuple[float, float] | None = None) -> Interval:
    """Return mean and 95 % interval (Student's t) of independent replicates."""
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    half_width = None
    if n > 1:
        half_width = float(stats.t.ppf((1 + _CONFIDENCE) / 2, n - 1) * array.std(ddof=1) / math.sqrt(n))
    return Interval(float(array.mean()), half_width, n, limits)


def corrected(found: Interval, comparisons: int) -> Interval:
    """Return an interval widened by Bonferroni's rule: all of so many contain their true value with 95 %."""
    if found.half_width is None:
        return found
    tails = (1 - _CONFIDENCE) / 2
    wide, narrow = (float(stats.t.ppf(1 - share, found.n - 1)) for share in (tails / comparisons, tails))
    return replace(found, half_width=found.half_width * wide / narrow)


def paired_difference(
    one: Mapping[Key, float], other: Mapping[Key, float], is_pair: Callable[[Key, Key], bool]
) -> Interval | None:
    """Return the mean of ``one - other`` over all pairs of replicates; None if there are none."""
    differences = [one[key] - other[match] for key in one for match in other if is_pair(key, match)]
    return interval(differences) if differences else None


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return Spearman's rank correlation of two ``[N]`` without their NaN pairs; NaN if one of them is constant."""
    known = ~(np.isnan(x) | np.isnan(y))
    if len(np.unique(x[known])) < 2 or len(np.unique(y[known])) < 2:
        return math.nan
    return float(stats.spearmanr(x[known], y[known]).statistic)
