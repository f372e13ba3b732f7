"""Simulated searches on small made-up tables whose answers are known."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from search import (
    MIN_EPOCHS,
    Searches,
    find_point,
    incumbent_regrets,
    markdown,
    noise_of_selection,
    point_regrets,
    regret_of_means,
    repeat,
    searched_space,
    simulate,
)
from search_table import MEASURED, METRICS, Table, read_table

VALUES: Mapping[str, list] = {
    "threshold": [10, 100],
    "fraction": [0.125, 0.375, 0.625, 0.875],
    "sampler": ["instance", "class-balanced"],
}
POINTS = [(k, p, s) for k in VALUES["threshold"] for p in VALUES["fraction"] for s in VALUES["sampler"]]


@pytest.fixture
def table() -> Table:
    """16 points without noise: on test they are 0.50, 0.51, ... in a mixed order, and the same on validation."""
    return make_table(np.random.default_rng(0).permutation(16)[:, None] * 0.01 + 0.5)


def make_table(test: NDArray[np.float64], noise: float = 0.0) -> Table:
    """Return a table of 6 epochs with this accuracy on test ``[P, S]``, in whose curves it rises to its value."""
    last = test + noise * np.random.default_rng(1).standard_normal(test.shape)
    curve = last[..., None] - np.linspace(0.1, 0, 6)
    return Table(
        name="made-up",
        values=VALUES,
        curves={"balanced_accuracy": curve, "ekld": 1 - curve},
        test={"balanced_accuracy": test, "ekld": 1 - test},
    )


def test_every_point_is_the_middle_of_its_cell_and_the_cells_are_equal(table):
    names = list(VALUES)
    assert [find_point(table, dict(zip(names, point, strict=True))) for point in POINTS] == list(range(16))
    space = searched_space(table)
    assert space["fraction"].float_ == (0, 1)
    assert space["threshold"].float_ == pytest.approx((10**0.5, 10**2.5)) and space["threshold"].log
    assert space["sampler"].choice == ("instance", "class-balanced")


@pytest.mark.parametrize("metric", METRICS)
def test_a_grid_without_noise_tries_each_point_once_and_ends_without_regret(table, metric):
    trials = simulate(table, metric, "grid", "none", 20, 3)
    assert sorted(trial.point for trial in trials) == list(range(16))
    regrets = incumbent_regrets(table, metric, trials)
    assert regrets[-1] == 0 and (np.diff(regrets) <= 0).all()
    assert noise_of_selection(table, metric, 100) == regret_of_means(table, metric) == 0


def test_the_regret_of_random_search_is_its_closed_form(table):
    """The best of n points drawn with replacement from P has a rank above k with probability ((P - k) / P)^n."""
    found = repeat(table, "balanced_accuracy", "random", "none", 100)
    for count in (1, 2, 8, 32):
        regrets = found.after_trials(count)
        expected = 0.01 * sum(((16 - k) / 16) ** count for k in range(1, 16))
        assert abs(regrets.mean() - expected) < 4 * regrets.std() / 100**0.5 + 1e-9
        np.testing.assert_array_equal(regrets, found.after_epochs(6 * count))


def test_the_choice_is_by_validation_and_the_regret_by_the_mean_on_test():
    test = np.full((16, 2), 0.5)
    test[0] = 0.9, 0.7
    test[1] = 0.6, 0.8
    misled = make_table(test)
    misled.curves["balanced_accuracy"][2, :, -1] = 0.95  # the best on validation, one of the worst on test
    assert point_regrets(misled, "balanced_accuracy")[:3] == pytest.approx([0, 0.1, 0.3])
    assert regret_of_means(misled, "balanced_accuracy") == pytest.approx(0.3)
    trials = simulate(misled, "balanced_accuracy", "grid", "none", 20, 0)
    assert incumbent_regrets(misled, "balanced_accuracy", trials)[-1] == pytest.approx(0.3)
    # With one value each of points 0 and 1, point 1 is chosen only if its 0.8 meets the 0.7 of point 0.
    assert noise_of_selection(make_table(test), "balanced_accuracy") == pytest.approx(0.1 / 4, abs=0.003)


def test_epochs_of_pruned_trials_are_counted_and_their_values_are_not(table):
    """With the median pruner and points that never change places, those below the finished median end after two."""
    trials = simulate(table, "balanced_accuracy", "random", "median", 20, 0)
    values = table.test["balanced_accuracy"][:, 0]
    assert {trial.epochs for trial in trials if trial.value is None} == {MIN_EPOCHS}
    assert {trial.epochs for trial in trials if trial.value is not None} == {6}
    for number, trial in enumerate(trials):
        earlier = [values[other.point] for other in trials[:number] if other.value is not None]
        is_below = len(earlier) >= 5 and values[trial.point] < np.median(earlier) - 1e-9
        assert (trial.value is None) == is_below
    total = sum(trial.epochs for trial in trials)
    assert 20 * 6 <= total < 21 * 6 and len(trials) > 20
    finished = [trial for trial in trials if trial.value is not None]
    assert incumbent_regrets(table, "balanced_accuracy", trials)[-1] == min(
        point_regrets(table, "balanced_accuracy")[trial.point] for trial in finished
    )


def test_regrets_between_two_ends_of_trials_are_those_of_the_earlier():
    searches = Searches(
        algorithm="tpe", pruner="median", regrets=[np.array([3.0, 2.0, 1.0])], epochs=[np.array([6, 9, 15])]
    )
    assert [searches.after_epochs(count)[0] for count in (6, 8, 9, 14, 15, 99)] == [3, 3, 2, 2, 1, 1]
    assert [searches.after_trials(count)[0] for count in (1, 2, 3, 64)] == [3, 2, 1, 1]


@pytest.mark.parametrize("algorithm", ["tpe", "nsga2"])
def test_a_search_is_the_same_again_and_another_seed_is_another(algorithm):
    noisy = make_table(np.random.default_rng(2).uniform(size=(16, 3)), noise=0.05)
    first, again, other = (simulate(noisy, "ekld", algorithm, "hyperband", 16, seed) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("name", ["search-digits", "search-fashion"])
def test_the_stored_tables_are_whole(name):
    stored = read_table(MEASURED / f"{name}.json")
    num_points = np.prod([len(values) for values in stored.values.values()])
    assert num_points <= 90
    for metric in METRICS:
        num_seeds = stored.test[metric].shape[1]
        assert num_seeds == 3 and stored.curves[metric].shape == (num_points, num_seeds, 6)
        assert np.isfinite(stored.curves[metric]).all() and np.isfinite(stored.test[metric]).all()


def test_the_level_of_a_seed_is_taken_out_and_its_order_of_points_kept(table):
    levels = np.array([-0.1, 0.0, 0.1])
    stored = replace(table, curves={name: curve + levels[:, None] for name, curve in table.curves.items()})
    curves = stored.curves_of_one_study("ekld")
    assert curves.shape == (16, 3, 6)
    np.testing.assert_allclose(curves, np.broadcast_to(table.curves["ekld"], curves.shape))


def test_the_report_has_a_row_per_setting(table):
    tried = replace(table, name="tried")
    rows = markdown(tried, "ekld", [repeat(tried, "ekld", name, "none", 3) for name in ("random", "tpe")]).splitlines()
    assert [row.split("|")[1].strip() for row in rows if row.startswith("| ")] == ["algorithm", "random", "tpe"]
