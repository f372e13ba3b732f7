import pytest

from gitdist.bench.accounting import Work, busy_s, overhead_s, work_ratio


@pytest.mark.parametrize(
    ("trials", "prefix_s", "generation_s", "expected"),
    [
        (1, 0.8, 0.3, 1.0),  # one trial shares with nobody
        (8, 0.0, 0.0, 1.0),  # nothing to share
        (8, 1.0, 0.0, 8.0),  # everything is shared
        (8, 0.8, 0.5, 8 * (1 + 0.5) / (0.8 + 0.2 * 8 + 0.5)),
    ],
)
def test_the_work_that_sharing_leaves(trials, prefix_s, generation_s, expected):
    def work(prefixes: int, images: int) -> dict[str, Work]:
        return {
            "prefixes": Work(seconds=trials * prefix_s, times=prefixes),
            "rests": Work(seconds=trials * (1 - prefix_s), times=2 * trials),
            "generation": Work(seconds=trials * generation_s, times=images),
        }

    assert work_ratio(work(8 * trials, 64 * trials), work(8, 64)) == pytest.approx(expected)


def test_work_that_is_not_done_costs_nothing():
    alone = {"rests": Work(seconds=4.0, times=2), "generation": Work(seconds=0.0, times=0)}
    assert work_ratio(alone, {**alone, "rests": Work(seconds=9.0, times=1)}) == 2


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
