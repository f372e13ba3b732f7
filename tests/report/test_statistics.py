import math
import operator

import numpy as np
import pytest
from scipy import stats

from gitdist.report.statistics import Interval, corrected, interval, paired_difference, rank_correlation


@pytest.mark.parametrize("n", [2, 3, 4, 5, 30, 200])
def test_an_interval_is_that_of_students_t(n):
    values = np.random.default_rng(n).normal(size=n)
    found = interval(values)
    low, high = stats.t.interval(0.95, n - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.ends, found.n) == (pytest.approx((low, high)), n)
    assert found.mean == pytest.approx((low + high) / 2)


def test_one_replicate_has_no_interval():
    assert interval([0.5]) == Interval(0.5, None, 1) and interval([0.5]).ends is None


def test_an_interval_is_cut_off_at_its_limits():
    values = [-1.0, -1.0, -0.7]
    found, free = interval(values, limits=(-1.0, 1.0)), interval(values)
    assert free.ends == (free.mean - free.half_width, free.mean + free.half_width) and free.ends[0] < -1
    assert found.ends == (-1.0, free.ends[1]) and (found.mean, found.half_width) == (free.mean, free.half_width)
    assert interval([-1.0, -1.0], limits=(-1.0, 1.0)).ends == (-1.0, -1.0)
    assert interval([-1.0], limits=(-1.0, 1.0)).ends is None


def test_a_rank_correlation_gives_ties_their_mean_rank_and_leaves_out_missing_pairs():
    x, y = np.array([5.0, 5.0, 20.0, 50.0]), np.array([0.4, 0.3, 0.2, 0.1])
    expected = np.corrcoef([1.5, 1.5, 3, 4], [4, 3, 2, 1])[0, 1]
    assert rank_correlation(x, y) == pytest.approx(expected)
    missing = np.array([np.nan])
    assert rank_correlation(np.append(x, 1.0), np.append(y, missing)) == pytest.approx(expected)
    assert rank_correlation(x[1:3], y[1:3]) == pytest.approx(-1)


def test_a_constant_has_no_rank_correlation():
    assert math.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
    assert math.isnan(rank_correlation(np.full(2, np.nan), np.arange(2.0)))


def test_pairs_are_the_replicates_that_both_have():
    one, other = {1: 0.5, 2: 0.7, 3: 9.0}, {1: 0.25, 2: 0.45, 4: 9.0}
    assert paired_difference(one, other, operator.eq) == interval([0.25, 0.7 - 0.45])
    assert paired_difference({1: 0.5}, {2: 0.5}, operator.eq) is None


def test_a_corrected_interval_has_the_quantile_of_all_comparisons():
    found = interval([0.1, 0.2, 0.4, 0.5])
    assert corrected(found, 1).half_width == pytest.approx(found.half_width)
    wide = stats.t.interval(1 - 0.05 / 3, 3, loc=found.mean, scale=stats.sem([0.1, 0.2, 0.4, 0.5]))
    assert corrected(found, 3).ends == pytest.approx(wide)
    assert corrected(interval([0.1]), 3).half_width is None
