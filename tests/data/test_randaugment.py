import importlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from gitdist.data.randaugment import CODES, RandAugment, draw_operations
from gitdist.seeds import numpy_rng
from gitdist.torchvision_cpu import torchvision

transforms = importlib.import_module(f"{torchvision.__name__}.transforms.v2")

RNG = np.random.default_rng(0)
DIGITS = torch.from_numpy((load_digits().images[:24] * 15).astype(np.uint8))[:, None]
NOISE = torch.from_numpy(RNG.integers(0, 256, (24, 3, 32, 32), dtype=np.uint8))
# Values from 60 to 200 alone; one image of one value, one with a large flat part.
SMOOTH = torch.from_numpy(np.clip(RNG.normal(128, 40, (24, 3, 27, 18)), 60, 200).astype(np.uint8))
SMOOTH[0], SMOOTH[1, :, :20] = 77, 200
MATERIAL = {
    "small digits": DIGITS,
    "large digits": DIGITS.repeat_interleave(4, 2).repeat_interleave(4, 3),
    "colour noise": NOISE,
    "flat colours": SMOOTH,
    "two rows": NOISE[:, :, :2],
}
NAMES = {"shear-x": "ShearX", "shear-y": "ShearY", "translate-x": "TranslateX", "translate-y": "TranslateY"}
NAMES |= {"autocontrast": "AutoContrast"}


def reference(image, code, magnitude):
    """Apply one operation to one image as torchvision's RandAugment does, its random choice replaced by ``code``."""
    name, sign = CODES[code]
    name = NAMES.get(name, name.capitalize())
    original = transforms.RandAugment(num_ops=1, magnitude=magnitude)
    levels = original._AUGMENTATION_SPACE[name][0](31, *image.shape[1:])
    level = 0.0 if levels is None else sign * float(levels[magnitude])
    return original._apply_image_or_video_transform(image, name, level, original.interpolation, original._fill)


def differing(images, code, magnitude):
    """Return by how many grey levels each pixel differs from torchvision's."""
    changed = RandAugment(magnitude, images.shape[1:])(images, np.full((1, len(images)), code))
    return changed.int() - torch.stack([reference(image, code, magnitude) for image in images]).int()


@pytest.mark.parametrize("code", range(len(CODES)), ids=[f"{name}{sign:+d}" for name, sign in CODES])
def test_every_operation_equals_torchvision_on_single_images(code):
    for name, images in MATERIAL.items():
        for magnitude in (0, 1, 9, 20, 30):
            difference = differing(images, code, magnitude).abs()
            if CODES[code][0] == "contrast":  # the rounding of its product depends on how torch cuts an array up
                assert difference.max() <= 1 and difference.count_nonzero() <= 1e-3 * images.numel()
            else:
                assert not difference.any(), f"{name}, magnitude {magnitude}"


def test_there_are_the_operations_of_torchvision_signed_where_it_draws_a_sign():
    space = transforms.RandAugment()._AUGMENTATION_SPACE
    codes = {(NAMES.get(name, name.capitalize()), sign) for name, sign in CODES}

    assert codes == {(name, sign) for name, (_, signed) in space.items() for sign in ((1, -1) if signed else (1,))}


@pytest.mark.parametrize("images", [DIGITS, NOISE], ids=["grey", "colour"])
def test_each_sample_of_a_mixed_batch_gets_its_own_operations_one_after_the_other(images):
    augment = RandAugment(9, images.shape[1:])
    codes = np.stack([np.arange(24) % len(CODES), RNG.permutation(24) % len(CODES)])
    before = images.clone()

    changed = augment(images, codes)

    single = [augment(augment(images[[i]], codes[:1, [i]]), codes[1:, [i]]) for i in range(24)]
    assert torch.equal(changed, torch.cat(single))
    assert torch.equal(images, before)
    assert (changed.shape, changed.dtype) == (images.shape, torch.uint8)


def test_without_operations_the_images_come_back():
    assert RandAugment(9, (3, 32, 32))(NOISE, draw_operations(24, 0, RNG)) is NOISE


def test_operations_are_equally_likely_and_signs_even():
    codes = draw_operations(15_000, 2, np.random.default_rng(1))
    names = np.array([name for name, _ in CODES])[codes]
    share = 1 / 14

    assert codes.shape == (2, 15_000)
    for code, (name, sign) in enumerate(CODES):
        expected = share / 2 if (name, -sign) in CODES else share
        assert np.mean(codes == code) == pytest.approx(expected, abs=4 * (expected / codes.size) ** 0.5)
        assert np.mean(names == name) == pytest.approx(share, abs=4 * (share / codes.size) ** 0.5)
    assert np.mean(names[0] == names[1]) == pytest.approx(share, abs=4 * (share / 15_000) ** 0.5)


def test_operations_follow_the_named_seed():
    first, same, other = (draw_operations(50, 2, numpy_rng(3, "trial/randaugment", epoch)) for epoch in (1, 1, 2))

    assert np.array_equal(first, same) and not np.array_equal(first, other)
