import numpy as np
import pytest
from scipy.stats import binom, chisquare

from gitdist.trial.sampling import class_probabilities, epoch_indices

SIZES = np.array([400, 0, 90, 10])
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), SIZES))
BETA = 0.99
WEIGHTS = {
    "class-balanced": [1, 0, 1, 1],
    "square-root": [400**0.5, 0, 90**0.5, 10**0.5],
    "effective-number": [n * (1 - BETA) / (1 - BETA**n) if n else 0 for n in (400, 0, 90, 10)],
    "progressively-balanced": [0.7 * n / 500 + 0.3 * (n > 0) / 3 for n in (400, 0, 90, 10)],
}
PROGRESS = 0.3


@pytest.mark.parametrize("sampler", list(WEIGHTS))
def test_class_probabilities_follow_the_samplers_formula(sampler):
    weights = np.array(WEIGHTS[sampler])

    assert class_probabilities(sampler, SIZES, BETA, PROGRESS) == pytest.approx(weights / weights.sum(), rel=1e-12)


@pytest.mark.parametrize(("progress", "same_as"), [(0.0, "instance"), (1.0, "class-balanced")])
def test_progressive_balancing_goes_from_instance_to_class_balanced(progress, same_as):
    probabilities = class_probabilities("progressively-balanced", SIZES, BETA, progress)

    assert np.array_equal(probabilities, class_probabilities(same_as, SIZES, BETA))


def test_effective_number_lies_between_instance_and_class_balanced():
    near_one, near_zero = (class_probabilities("effective-number", SIZES, beta) for beta in (1 - 1e-12, 1e-12))

    assert near_one == pytest.approx(class_probabilities("class-balanced", SIZES, BETA), abs=1e-6)
    assert near_zero == pytest.approx(class_probabilities("instance", SIZES, BETA), abs=1e-6)


def test_instance_sampling_visits_every_row_once_in_a_new_order():
    rows = epoch_indices("instance", LABELS, SIZES, BETA, np.random.default_rng(1))

    assert not np.array_equal(rows, np.arange(500))
    assert np.array_equal(np.sort(rows), np.arange(500))


@pytest.mark.parametrize("sampler", list(WEIGHTS))
def test_each_class_is_drawn_as_often_as_a_binomial_count(sampler):
    rng = np.random.default_rng(2)
    rows = np.concatenate([epoch_indices(sampler, LABELS, SIZES, BETA, rng, PROGRESS) for _ in range(40)])
    weights = np.array(WEIGHTS[sampler])

    drawn = np.bincount(LABELS[rows], minlength=4)

    fewest, most = binom.interval(0.999, 20_000, weights / weights.sum())
    assert drawn[1] == 0
    assert ((fewest <= drawn) & (drawn <= most))[SIZES > 0].all()


@pytest.mark.parametrize("sampler", list(WEIGHTS))
def test_rows_of_a_class_are_equally_likely(sampler):
    rng = np.random.default_rng(3)
    rows = np.concatenate([epoch_indices(sampler, LABELS, SIZES, BETA, rng, PROGRESS) for _ in range(40)])

    for class_index in (0, 2, 3):
        own = np.flatnonzero(LABELS == class_index)
        assert chisquare(np.bincount(rows, minlength=500)[own]).pvalue > 1e-3


@pytest.mark.parametrize("sampler", ["instance", *WEIGHTS])
def test_an_epoch_has_as_many_samples_as_there_are_rows_and_follows_the_seed(sampler):
    first, second, other = (epoch_indices(sampler, LABELS, SIZES, BETA, np.random.default_rng(n)) for n in (4, 4, 5))

    assert len(first) == 500
    assert np.array_equal(first, second) and not np.array_equal(first, other)
