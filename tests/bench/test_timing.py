import pytest

from gitdist.bench.timing import Spread, alternate, quotients, spread


@pytest.mark.parametrize(
    ("values", "expected"), [([3.0], (3, 3, 3)), ([5.0, 1.0, 2.0], (2, 1, 5)), ([4.0, 1.0, 2.0, 9.0], (3, 1, 9))]
)
def test_a_spread_has_median_least_and_greatest(values, expected):
    assert spread(values) == Spread(*expected)


def test_sides_take_turns_and_the_warm_up_does_not_count():
    turns = []

    def side(name):
        return lambda: turns.append(name) or float(len(turns))

    assert alternate({"a": side("a"), "b": side("b")}, repeats=2) == {"a": [4.0, 5.0], "b": [3.0, 6.0]}
    assert turns == ["a", "b", "b", "a", "a", "b"]  # each round begins with another one


def test_ratios_are_those_of_each_repeat():
    assert quotients([6.0, 1.0], [3.0, 4.0]) == [2.0, 0.25]
    with pytest.raises(ValueError):
        quotients([1.0], [1.0, 2.0])
