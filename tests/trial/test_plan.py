"""What an epoch of a trial does: images, class weights and priors."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import binom, chisquare

from gitdist.balancing.samplers import SAMPLERS
from gitdist.spec import TrialSpec
from gitdist.trial.plan import class_priors, class_weights, epoch_indices
from tests.balancing.test_samplers import EPOCH, SIZES, WEIGHTS, spec_of
from tests.trial.toys import short_spec, whole

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), SIZES))
FULL = np.array([400, 90, 10])


def indices_of(sampler, seed=0):
    return epoch_indices(spec_of(sampler, seed=seed), LABELS, SIZES, EPOCH)


def test_instance_sampling_takes_every_image_once_in_a_new_order():
    indices = indices_of("instance")

    assert not np.array_equal(indices, np.arange(500))
    assert np.array_equal(np.sort(indices), np.arange(500))


WITH_REPLACEMENT = [sampler for sampler in SAMPLERS if sampler != "instance"]


@pytest.mark.parametrize("sampler", WITH_REPLACEMENT)
def test_each_class_is_drawn_as_often_as_a_binomial_count(sampler):
    indices = np.concatenate([indices_of(sampler, seed) for seed in range(40)])
    weights = np.array(WEIGHTS[sampler])

    drawn = np.bincount(LABELS[indices], minlength=4)

    fewest, most = binom.interval(0.999, 20_000, weights / weights.sum())
    assert drawn[1] == 0
    assert ((fewest <= drawn) & (drawn <= most))[SIZES > 0].all()


@pytest.mark.parametrize("sampler", WITH_REPLACEMENT)
def test_images_of_a_class_are_equally_likely(sampler):
    indices = np.concatenate([indices_of(sampler, seed) for seed in range(40)])

    for class_index in (0, 2, 3):
        own = np.flatnonzero(LABELS == class_index)
        assert chisquare(np.bincount(indices, minlength=500)[own]).pvalue > 1e-3


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_an_epoch_has_as_many_samples_as_there_are_images_and_follows_the_seed(sampler):
    first, second, other = (indices_of(sampler, seed) for seed in (4, 4, 5))

    assert len(first) == 500
    assert np.array_equal(first, second) and not np.array_equal(first, other)


def test_before_the_switch_every_sampler_is_instance_sampling(digits):
    spec, labels = short_spec(), digits.train.labels

    indices = epoch_indices(spec, labels, digits.class_sizes, 1)

    assert np.sort(indices).tolist() == list(range(len(labels)))


def test_progressive_balancing_ends_class_balanced_and_is_between_before(digits):
    progressive, balanced, instance = (
        [
            epoch_indices(
                short_spec(sampler=name, epochs=4, switch_epoch=2), digits.train.labels, digits.class_sizes, epoch
            )
            for epoch in (1, 2, 3, 4)
        ]
        for name in ("progressively-balanced", "class-balanced", "instance")
    )

    assert [np.array_equal(*pair) for pair in zip(progressive, balanced, strict=True)] == [True, True, False, True]
    assert not np.array_equal(progressive[2], instance[2])


def weights_of(kind, beta=0.99):
    return class_weights(TrialSpec(class_weights=kind, effective_beta=beta), SIZES, 1)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("inverse", [1 / 400, 0, 1 / 90, 1 / 10]),
        ("effective-number", [(1 - 0.99) / (1 - 0.99**n) if n else 0 for n in (400, 0, 90, 10)]),
    ],
)
def test_weights_follow_their_formula_and_add_up_to_the_number_of_classes(kind, raw):
    weights = weights_of(kind)

    assert weights == pytest.approx(4 * np.array(raw) / sum(raw), rel=1e-12)
    assert weights.sum() == pytest.approx(4)


def test_effective_numbers_lie_between_no_weights_and_inverse_ones():
    assert weights_of("effective-number", 1e-12) == pytest.approx([4 / 3, 0, 4 / 3, 4 / 3])
    assert weights_of("effective-number", 1 - 1e-9) == pytest.approx(weights_of("inverse"), rel=1e-6)


@pytest.mark.parametrize(("deferred", "first"), [(True, 4), (False, 1)])
def test_deferred_weights_begin_after_the_switch(deferred, first):
    spec = TrialSpec(class_weights="inverse", weights_deferred=deferred, switch_epoch=3, epochs=5)

    assert [epoch for epoch in range(1, 6) if class_weights(spec, SIZES, epoch) is not None] == list(range(first, 6))


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_before_the_switch_the_priors_are_the_classes_shares_of_the_images_to_the_bit(sampler):
    spec = TrialSpec(sampler=sampler, class_weights="inverse", switch_epoch=2)

    for epoch in (1, 2):
        assert np.array_equal(class_priors(spec, FULL, epoch), FULL / FULL.sum())


@pytest.mark.parametrize(
    ("fields", "epoch", "shares"),
    [
        ({"sampler": "instance"}, 4, [400, 90, 10]),
        ({"sampler": "class-balanced"}, 3, [1, 1, 1]),
        ({"sampler": "instance", "class_weights": "inverse"}, 3, [1, 1, 1]),
        ({"sampler": "class-balanced", "class_weights": "inverse"}, 3, [1 / 400, 1 / 90, 1 / 10]),
        ({"class_weights": "inverse", "weights_deferred": False}, 2, [1, 1, 1]),
        ({"sampler": "progressively-balanced"}, 3, [0.5 * n / 500 + 0.5 / 3 for n in (400, 90, 10)]),
        (
            {"sampler": "square-root", "class_weights": "effective-number", "effective_beta": 0.99},
            4,
            [n**0.5 / (1 - 0.99**n) for n in (400, 90, 10)],
        ),
    ],
)
def test_priors_are_proportional_to_what_is_drawn_times_its_weight(fields, epoch, shares):
    priors = class_priors(TrialSpec(epochs=4, switch_epoch=2, **fields), FULL, epoch)

    assert priors == pytest.approx(np.array(shares) / sum(shares), rel=1e-12)


def test_weights_change_training_once_they_have_begun(digits, tmp_path):
    fields = {"epochs": 2, "switch_epoch": 1, "fraction": 0.0, "sampler": "instance"}
    variants = [{}, {"class_weights": "inverse"}, {"class_weights": "inverse", "weights_deferred": False}]
    none, deferred, early = (
        whole(short_spec(**fields, **variant), digits, tmp_path / str(number), stream=None)[0]
        for number, variant in enumerate(variants)
    )

    assert deferred[0] == none[0] and deferred[1] != none[1]
    assert early[0] != none[0]


def test_deferred_weights_that_would_never_begin_are_refused():
    with pytest.raises(ValidationError, match="switch_epoch = 50 is the last epoch; lower it"):
        TrialSpec(class_weights="inverse", switch_epoch=50, epochs=50)
    TrialSpec(class_weights="inverse", switch_epoch=50, epochs=50, weights_deferred=False)
