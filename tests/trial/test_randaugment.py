import importlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from gitdist.data.torchvision_cpu import torchvision
from gitdist.trial.randaugment import CODES, RandAugment, draw_operations

torchvision_v2 = importlib.import_module(f"{torchvision.__name__}.transforms.v2")

RNG = np.random.default_rng(0)
DIGITS = torch.from_numpy((load_digits().images[:24] * 15).astype(np.uint8))[:, None]
NOISE = torch.from_numpy(RNG.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8))
# Dark and bright ends, one value alone, and values of which the first 255 pixels decide.
SMOOTH = torch.from_numpy(np.clip(RNG.normal(128, 40, (24, 3, 27, 18)), 60, 200).astype(np.uint8))
SMOOTH[0] = 77
SMOOTH[1, :, :10] = 200
MATERIAL = {"grey digits": DIGITS, "large grey digits": DIGITS.repeat_interleave(4, 2).repeat_interleave(4, 3)}
MATERIAL |= {"colour noise": NOISE, "smooth colours of odd height": SMOOTH}
NAMES = {"shear-x": "ShearX", "shear-y": "ShearY", "translate-x": "TranslateX", "translate-y": "TranslateY"}


def reference(image, name, sign, magnitude):
    """Apply one operation to one image as torchvision's RandAugment does."""
    original = torchvision_v2.RandAugment(num_ops=1, magnitude=magnitude)
    names = {key.lower(): key for key in original._AUGMENTATION_SPACE} | NAMES
    levels = original._AUGMENTATION_SPACE[names[name]][0](31, *image.shape[1:])
    level = 0.0 if levels is None else sign * float(levels[magnitude])
    return original._apply_image_or_video_transform(image, names[name], level, "nearest", {torch.Tensor: None})


@pytest.mark.parametrize("code", range(len(CODES)), ids=[f"{name}{sign:+d}" for name, sign in CODES])
def test_every_operation_equals_torchvision_on_single_images(code):
    for images in MATERIAL.values():
        for magnitude in (0, 1, 9, 10, 20, 30):
            augment = RandAugment(magnitude, images.shape[1:])
            changed = augment(images, np.full((1, len(images)), code))
            expected = torch.stack([reference(image, *CODES[code], magnitude) for image in images])
            assert torch.equal(changed, expected), f"magnitude {magnitude}"


def test_a_batch_of_many_operations_is_what_each_image_becomes_alone():
    operations = draw_operations(len(NOISE), 3, np.random.default_rng(1))
    assert len(np.unique(operations)) > 10
    augment = RandAugment(20, NOISE.shape[1:])
    alone = [augment(NOISE[row : row + 1], operations[:, row : row + 1]) for row in range(len(NOISE))]
    assert torch.equal(augment(NOISE, operations), torch.cat(alone))


def test_operations_are_drawn_with_equal_probability_and_both_signs_where_they_have_one():
    counts = np.bincount(draw_operations(140_000, 1, np.random.default_rng(2))[0], minlength=len(CODES))
    signed = {name for name, sign in CODES if sign == -1}
    expected = [5_000 if name in signed else 10_000 for name, _ in CODES]
    assert np.abs(counts - expected).max() < 500  # five standard deviations
