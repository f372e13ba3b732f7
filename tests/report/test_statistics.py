import math

import numpy as np
import pytest
from scipy import stats

from gitdist.report.statistics import Interval, average_ranks, interval, paired, rank_correlation, t_bound


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 29, 200])
def test_the_bound_of_students_t(freedom):
    assert t_bound(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-9)


def test_an_interval_is_scipys():
    values = [0.7, 0.75, 0.71, 0.9]
    found = interval(values)
    low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean - found.half, found.mean + found.half, found.n) == (pytest.approx(low), pytest.approx(high), 4)


def test_one_replicate_has_no_interval():
    assert interval([0.5]) == Interval(0.5, None, 1)
    assert not interval([0.5]).excludes_zero


def test_an_interval_is_cut_off_at_its_limits():
    values = [-1.0, -1.0, -0.7]
    found, free = interval(values, limits=(-1.0, 1.0)), interval(values)
    assert free.ends == (free.mean - free.half, free.mean + free.half) and free.ends[0] < -1
    assert found.ends == (-1.0, free.ends[1]) and (found.mean, found.half) == (free.mean, free.half)
    assert interval([-1.0, -1.0], limits=(-1.0, 1.0)).ends == (-1.0, -1.0)
    assert interval([-1.0], limits=(-1.0, 1.0)).ends is None


def test_ranks_and_their_correlation_are_scipys():
    draws = np.random.default_rng(0)
    x, y = draws.integers(0, 5, 30).astype(float), draws.normal(size=30)
    assert average_ranks(x).tolist() == stats.rankdata(x).tolist()
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y)[0])
    y[3] = np.nan
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(np.delete(x, 3), np.delete(y, 3))[0])


def test_a_constant_has_no_rank_correlation():
    assert math.isnan(rank_correlation(np.ones(4), np.arange(4.0)))
    assert math.isnan(rank_correlation(np.full(2, np.nan), np.arange(2.0)))


def test_pairs_are_the_replicates_that_both_have():
    assert paired({1: 0.5, 2: 0.7, 3: 9.0}, {1: 0.25, 2: 0.45, 4: 9.0}) == interval([0.25, 0.7 - 0.45])
    assert paired({1: 0.5}, {2: 0.5}) is None
    assert interval([0.2, 0.2, 0.2]).excludes_zero and not interval([-1.0, 1.1]).excludes_zero
