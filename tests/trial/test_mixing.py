"""Algorithm 1: which samples are replaced is known beforehand, and is what training does."""

import numpy as np
import pytest

from gitdist.errors import SpecError
from gitdist.spec import TrialSpec
from gitdist.trial.mixing import augmented_classes, draws_needed, replaced_samples, replacement_probabilities
from gitdist.trial.training import train
from tests.trial.toys import setting_of, short_spec, stream_of

SIZES = np.array([100, 50, 20, 10])
LABELS = np.array([3, 0, 2, 1, 2, 3, 1, 0, 3, 2])


def replaced(labels, threshold, kind="hard", fraction=0.5, batch_size=None, **fields):
    """Return what is replaced of an epoch, by default of one batch."""
    size = batch_size or len(labels)
    spec = TrialSpec(threshold=threshold, threshold_kind=kind, fraction=fraction, batch_size=size, **fields)
    return replaced_samples(spec, labels, SIZES, spec.switch_epoch + 1)


def test_only_the_first_share_of_each_batch_is_replaced():
    assert replaced(LABELS, None).tolist() == [True] * 5 + [False] * 5
    assert replaced(LABELS, None, batch_size=4).tolist() == [True, True, False, False] * 2 + [True, False]


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.34, 3), (0.39, 3), (1.0, 10)])
def test_the_share_is_rounded_down(fraction, count):
    assert replaced(LABELS, None, fraction=fraction).sum() == count


def test_before_the_switch_nothing_is_replaced():
    spec = TrialSpec(threshold=None, fraction=1.0, switch_epoch=2)

    assert not replaced_samples(spec, LABELS, SIZES, 2).any() and replaced_samples(spec, LABELS, SIZES, 3).all()


def test_hard_threshold_replaces_classes_with_fewer_images_than_k():
    assert replaced(LABELS, 50).tolist() == [True, False, True, False, True] + [False] * 5


def test_a_class_of_exactly_k_images_is_kept():
    assert replaced(LABELS, 20, fraction=1.0).tolist() == (LABELS == 3).tolist()


def test_soft_threshold_replaces_with_the_published_probability():
    labels = np.tile(np.arange(4), 20_000)

    mask = replaced(labels, 60, "soft", fraction=1.0)

    shares = [mask[labels == class_index].mean() for class_index in range(4)]
    # (60 - n) / (60 - 10), within four standard deviations of 20,000 draws
    assert shares == pytest.approx([0.0, 0.2, 0.8, 1.0], abs=4 * 0.5 / 20_000**0.5)
    assert shares[0] == 0.0 and shares[3] == 1.0


def test_soft_threshold_leaves_the_rest_of_the_batch_alone():
    assert not replaced(np.full(10, 3), 60, "soft")[5:].any()


def test_soft_without_a_threshold_replaces_all_classes():
    assert replaced(LABELS, None, "soft", fraction=1.0).all()


@pytest.mark.parametrize("threshold", [10, 3.5])
def test_soft_threshold_not_above_the_smallest_class_is_refused(threshold):
    with pytest.raises(SpecError, match=f"threshold = {threshold} .* 10 images"):
        replacement_probabilities(TrialSpec(threshold=threshold, threshold_kind="soft"), SIZES)


@pytest.mark.parametrize(("threshold", "kind"), [(10.5, "soft"), (10, "hard"), (None, "soft")])
def test_thresholds_with_a_meaning_are_accepted(threshold, kind):
    replacement_probabilities(TrialSpec(threshold=threshold, threshold_kind=kind), SIZES)


@pytest.mark.parametrize(
    ("threshold", "kind", "fraction", "switch_epoch", "expected"),
    [
        (10, "hard", 0.5, 0, [False, False, False]),
        (11, "hard", 0.5, 0, [False, False, True]),
        (None, "soft", 0.5, 0, [True, True, True]),
        (60, "soft", 0.5, 0, [False, True, True]),
        (60, "hard", 0.007, 0, [False, False, False]),
        (60, "hard", 0.5, 5, [False, False, False]),
    ],
)
def test_the_classes_that_a_trial_augments(threshold, kind, fraction, switch_epoch, expected):
    fields = {"threshold": threshold, "threshold_kind": kind, "fraction": fraction, "switch_epoch": switch_epoch}

    assert augmented_classes(TrialSpec(**fields, epochs=5), np.array([100, 50, 10])).tolist() == expected


def test_a_class_without_images_is_not_augmented():
    assert augmented_classes(TrialSpec(threshold=50), np.array([100, 0, 10])).tolist() == [False, False, True]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"threshold_kind": "hard"},
        {"threshold": None, "threshold_kind": "hard", "fraction": 0.9, "batch_size": 37},
        {"sampler": "instance", "switch_epoch": 0},
        {"sampler": "progressively-balanced", "threshold_kind": "hard"},
        {"switch_epoch": 4},
        {"fraction": 0.0},
    ],
)
def test_the_draws_needed_are_the_draws_taken(digits, fields):
    spec, stream = short_spec(**fields), stream_of(digits)
    labels, sizes = digits.train.labels, digits.class_sizes
    draws = [row.draws for row in train(spec, digits, setting_of(digits, stream=stream))]
    needed = draws_needed(spec, labels, sizes)
    assert needed.tolist() == stream.cursors.tolist() and needed.sum() == sum(draws)
