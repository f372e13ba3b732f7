"""RandAugment in training: drawn under a name of its own, applied between flip and normalisation."""

import numpy as np
import torch

from gitdist.seeds import numpy_rng
from gitdist.trial.augment import Normaliser, draw_placement, place
from gitdist.trial.pipeline import Pipeline
from gitdist.trial.randaugment import RandAugment, draw_operations
from tests.trial.toys import short_spec, whole

CPU = torch.device("cpu")


def test_a_batch_is_placed_then_augmented_then_normalised(digits):
    spec = short_spec(randaugment_ops=2, randaugment_magnitude=15, seed=3)
    images = torch.from_numpy(np.array(digits.train.images[:50]))
    placement = draw_placement(50, spec.crop_padding, spec.flip, numpy_rng(3, "trial/placement", 7))
    operations = draw_operations(50, 2, numpy_rng(3, "trial/randaugment", 7))
    placed = place(images, placement)
    augmented = RandAugment(15, digits.image_shape)(placed, operations)
    expected = Normaliser(digits.mean, digits.std)(augmented)
    inputs_of = Pipeline(spec, digits, CPU).epoch(7, 50)
    assert torch.equal(torch.cat([inputs_of(images[:20], 0), inputs_of(images[20:], 20)]), expected)
    assert not torch.equal(augmented, placed)


def test_without_operations_nothing_moves_and_with_them_the_samples_stay(digits, tmp_path):
    plain, _ = whole(short_spec(epochs=2), digits, tmp_path / "plain")
    other, _ = whole(short_spec(epochs=2, randaugment_magnitude=3), digits, tmp_path / "other")
    augmented, _ = whole(short_spec(epochs=2, randaugment_ops=1), digits, tmp_path / "augmented")
    assert other == plain and augmented != plain
    assert [row["draws"] for row in augmented] == [row["draws"] for row in plain]
