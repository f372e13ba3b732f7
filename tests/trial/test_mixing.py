import numpy as np
import pytest

from gitdist.errors import SpecError
from gitdist.trial.mixing import check_threshold, eligible_classes, replace_mask

SIZES = np.array([100, 50, 20, 10])
LABELS = np.array([3, 0, 2, 1, 2, 3, 1, 0, 3, 2])


def mask_of(labels, threshold, kind="hard", fraction=0.5, seed=0):
    return replace_mask(labels, SIZES, threshold, kind, fraction, np.random.default_rng(seed))


def test_only_the_first_share_of_the_batch_is_replaced():
    assert mask_of(LABELS, None, fraction=0.5).tolist() == [True] * 5 + [False] * 5


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.34, 3), (0.39, 3), (1.0, 10)])
def test_the_share_is_rounded_down(fraction, count):
    assert mask_of(LABELS, None, fraction=fraction).sum() == count


def test_hard_threshold_replaces_classes_with_fewer_images_than_k():
    assert mask_of(LABELS, 50).tolist() == [True, False, True, False, True] + [False] * 5


def test_a_class_of_exactly_k_images_is_kept():
    assert mask_of(LABELS, 20, fraction=1.0).tolist() == (LABELS == 3).tolist()


def test_hard_threshold_reads_no_random_numbers():
    rng = np.random.default_rng(0)
    replace_mask(LABELS, SIZES, 50, "hard", 1.0, rng)

    assert rng.random() == np.random.default_rng(0).random()


def test_soft_threshold_replaces_with_the_published_probability():
    labels = np.tile(np.arange(4), 20_000)

    mask = mask_of(labels, 60, "soft", fraction=1.0)

    shares = [mask[labels == class_index].mean() for class_index in range(4)]
    # (60 - n) / (60 - 10), within four standard deviations of 20,000 draws
    assert shares == pytest.approx([0.0, 0.2, 0.8, 1.0], abs=4 * 0.5 / 20_000**0.5)
    assert shares[0] == 0.0 and shares[3] == 1.0


def test_soft_threshold_leaves_the_rest_of_the_batch_alone():
    assert not mask_of(np.full(10, 3), 60, "soft", fraction=0.5)[5:].any()


def test_soft_without_a_threshold_replaces_all_classes():
    assert mask_of(LABELS, None, "soft", fraction=1.0).all()


@pytest.mark.parametrize("threshold", [10, 3.5])
def test_soft_threshold_not_above_the_smallest_class_is_refused(threshold):
    with pytest.raises(SpecError, match=f"trial.threshold = {threshold} .* 10 images"):
        check_threshold(threshold, "soft", SIZES)


@pytest.mark.parametrize(("threshold", "kind"), [(10.5, "soft"), (10, "hard"), (None, "soft")])
def test_thresholds_with_a_meaning_are_accepted(threshold, kind):
    check_threshold(threshold, kind, SIZES)


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_eligible_classes_are_those_that_can_be_replaced(kind):
    assert eligible_classes(SIZES, 50, kind).tolist() == [False, False, True, True]
    assert eligible_classes(SIZES, None, kind).all()
