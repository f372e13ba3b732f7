from itertools import combinations

import numpy as np
import pytest

from gitdist.data.nuisance import transform
from gitdist.generator.quality import (
    kept_shares,
    nuisance_deviations,
    object_deviations,
    pairwise_distances,
    pixel_deviations,
)


@pytest.fixture
def draws() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 5, 2, 4, 4), dtype=np.uint8)


def test_draws_that_are_all_alike_do_not_vary(draws):
    same = np.repeat(draws[:, :1], 5, 1)
    for varied in (pixel_deviations(same), pairwise_distances(same)):
        assert varied.tolist() == [0, 0, 0]
    assert nuisance_deviations("dilation-erosion", same, draws[:, 0]).tolist() == [0, 0, 0]


def test_variation_equals_its_formula(draws):
    pixels = draws.reshape(3, 5, -1).astype(float)
    assert pixel_deviations(draws) == pytest.approx(pixels.std(1, ddof=1).mean(1))
    expected = [np.mean([np.abs(a - b).mean() for a, b in combinations(image, 2)]) for image in pixels]
    assert pairwise_distances(draws) == pytest.approx(expected)


def test_of_a_background_only_the_level_behind_the_object_counts():
    clean = np.zeros((2, 1, 6, 6), np.uint8)
    clean[0, :, 2:4] = 200
    clean[1] = 9  # no background at all
    levels = np.array([10, 30, 80], np.uint8)
    draws = np.where(clean[:, None] == 0, levels[None, :, None, None, None], 100 * levels[None, :, None, None, None])
    found = nuisance_deviations("background", draws.astype(np.uint8), clean)
    assert found[0] == pytest.approx(levels.std(ddof=1)) and np.isnan(found[1])


def test_of_an_object_the_level_before_the_background_counts():
    clean = np.zeros((2, 1, 6, 6), np.uint8)
    clean[0, :, 2:4] = 200  # the other image has no object
    levels = np.array([10, 30, 80], np.uint8)
    draws = np.where(clean[:, None] == 0, 255 - levels[None, :, None, None, None], levels[None, :, None, None, None])
    found = object_deviations(draws.astype(np.uint8), clean)
    assert found[0] == pytest.approx(levels.std(ddof=1)) and np.isnan(found[1])


def test_draws_of_the_background_have_the_levels_deviation(digits):
    clean = digits.validation.clean[:60]
    rng = np.random.default_rng(0)
    draws = np.stack([transform("background", clean, rng) for _ in range(30)], 1)
    uniform = np.sqrt((100**2 - 1) / 12)  # of the integers 0..99
    assert nuisance_deviations("background", draws, clean).mean() == pytest.approx(uniform, rel=0.05)


def test_kept_shares_are_per_class_of_the_image():
    predictions = np.array([[0, 0, 1, 0], [1, 1, 1, 1], [0, 2, 0, 0]])
    shares = kept_shares(predictions, np.array([0, 1, 0]), 3)
    assert shares[:2].tolist() == [0.75, 1.0] and np.isnan(shares[2])
