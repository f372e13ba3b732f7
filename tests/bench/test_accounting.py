import pytest

from gitdist.bench.accounting import busy_s, overhead_s, sharing_bound


@pytest.mark.parametrize(
    ("trials", "shared", "generation", "expected"),
    [
        (1, 0.8, 0.3, 1.0),  # one trial shares with nobody
        (8, 0.0, 0.0, 1.0),  # nothing to share
        (8, 1.0, 0.0, 8.0),  # everything is shared
        (8, 0.8, 0.5, 12 / 2.9),
    ],
)
def test_the_bound_of_sharing(trials, shared, generation, expected):
    assert sharing_bound(trials, shared, generation) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([], 0),
        ([(2, 4), (3, 5)], 3),  # two workers at once
        ([(3, 5), (2, 9)], 7),  # one within the other, in any order
        ([(-5, 1), (9, 20)], 2),  # what lies outside the study does not count
        ([(-5, -1), (11, 12)], 0),
    ],
)
def test_busy_time_is_the_union_within_the_window(intervals, expected):
    assert busy_s(intervals, (0, 10)) == expected


def test_overhead_is_a_trials_share_of_the_idle_time():
    assert overhead_s([(2, 4), (3, 6)], (0, 10), trials=4) == 1.5
