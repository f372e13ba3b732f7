import numpy as np
import pytest
import torch

from gitdist.trial.augment import Normaliser, draw_placement, place

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 7, 9), dtype=np.uint8))


def place_one_by_one(images, padding, placement):
    """Pad, cut and mirror each image with slices."""
    result = []
    for index, image in enumerate(images.numpy()):
        if placement.down is not None:
            padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
            top, left = int(placement.down[index]), int(placement.across[index])
            image = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
        if placement.flip is not None and placement.flip[index]:
            image = image[:, :, ::-1]
        result.append(image)
    return np.stack(result)


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (2, False), (0, True), (4, True)])
def test_crop_and_flip_equal_those_of_single_images(padding, flip):
    placement = draw_placement(40, padding, flip, np.random.default_rng(1))

    assert np.array_equal(place(IMAGES, placement).numpy(), place_one_by_one(IMAGES, padding, placement))


def test_a_part_of_an_epoch_is_placed_as_in_the_whole():
    placement = draw_placement(40, 2, True, np.random.default_rng(2))

    part = place(IMAGES[8:24], placement.rows(8, 24))

    assert torch.equal(part, place(IMAGES, placement)[8:24])


def test_corners_and_mirrorings_are_uniform():
    placement = draw_placement(30_000, 1, True, np.random.default_rng(3))
    corners = np.bincount(3 * placement.down.numpy() + placement.across.numpy(), minlength=9) / 30_000

    assert corners == pytest.approx(np.full(9, 1 / 9), abs=4 * (8 / 81 / 30_000) ** 0.5)
    assert placement.flip.double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 30_000**0.5)


def test_placing_leaves_the_given_images_unchanged():
    before = IMAGES.clone()
    place(IMAGES, draw_placement(40, 2, True, np.random.default_rng(4)))

    assert torch.equal(IMAGES, before)


def test_normalised_pixels_follow_the_formula_in_channels_last():
    mean, std = (0.2, 0.5, 0.7), (0.3, 0.1, 0.25)

    normalised = Normaliser(mean, std)(IMAGES)

    expected = (IMAGES.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.allclose(normalised.double(), expected, atol=1e-5)
    assert normalised.dtype == torch.float32 and normalised.is_contiguous(memory_format=torch.channels_last)
