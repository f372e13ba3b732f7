import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import scipy.ndimage
import torch
from numpy.typing import NDArray

from gitdist.data import nuisance
from gitdist.data.dataset import prepare
from gitdist.data.nuisance import NUISANCES, Nuisance, transform
from gitdist.data.sources import load_source
from gitdist.errors import SpecError
from gitdist.generator.oracle import OracleGenerator
from gitdist.generator.quality import nuisance_deviations
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec
from gitdist.store import Store


@pytest.fixture(scope="module")
def digits() -> NDArray[np.uint8]:
    return load_source(DataSpec()).test_images


def colour(seed: int, count: int, height: int = 12, width: int = 10) -> NDArray[np.uint8]:
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8)
    images[:, :, :4, :3] = 0
    return images


def cubic_weight(distance: float) -> float:
    """Weight of the cubic convolution kernel (Keys 1981) with a = -0.75."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def rotated_slowly(image: NDArray[np.uint8], degrees: float) -> NDArray[np.float64]:
    """Rotate one channel ``[H, W]`` pixel by pixel: counter-clockwise, y axis downwards, 0 outside."""
    height, width = image.shape
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    result = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            y, x = row - (height - 1) / 2, column - (width - 1) / 2
            from_y = sine * x + cosine * y + (height - 1) / 2
            from_x = cosine * x - sine * y + (width - 1) / 2
            for i in range(math.floor(from_y) - 1, math.floor(from_y) + 3):
                for j in range(math.floor(from_x) - 1, math.floor(from_x) + 3):
                    if 0 <= i < height and 0 <= j < width:
                        result[row, column] += cubic_weight(from_y - i) * cubic_weight(from_x - j) * float(image[i, j])
    return result.round().clip(0, 255)


class OneAngle(np.random.Generator):
    """A generator whose uniform numbers are all one value."""

    def __init__(self, value: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.value = value

    def uniform(self, low: float, high: float, size: int) -> NDArray[np.float64]:  # type: ignore[override]
        assert (low, high) == (-180.0, 180.0)
        return np.full(size, self.value)


def test_rotation_is_the_cubic_convolution_of_the_formula() -> None:
    images = colour(1, 4)
    angles = np.random.default_rng(5).uniform(-180.0, 180.0, 4)
    expected = [
        [rotated_slowly(channel, angle) for channel in image] for image, angle in zip(images, angles, strict=True)
    ]
    assert np.abs(transform("rotation", images, np.random.default_rng(5)) - np.asarray(expected)).max() <= 1


@pytest.mark.parametrize(("degrees", "quarters"), [(0.0, 0), (90.0, 1), (-90.0, -1), (-180.0, 2)])
def test_quarter_turns_move_pixels_without_changing_them(
    digits: NDArray[np.uint8], degrees: float, quarters: int
) -> None:
    turned = transform("rotation", digits[:5], OneAngle(degrees))
    np.testing.assert_array_equal(turned, np.rot90(digits[:5], quarters, axes=(2, 3)))


def test_rotation_agrees_with_scipy_on_a_smooth_image() -> None:
    y, x = np.mgrid[:29, :29] - 14.0
    image = (240 * np.exp(-((x - 4) ** 2 + (y + 3) ** 2) / 30)).round().astype(np.uint8)
    expected = scipy.ndimage.rotate(image.astype(float), 33.0, reshape=False, order=3)
    turned = transform("rotation", image[None, None], OneAngle(33.0))[0, 0]
    assert np.abs(turned - expected).max() < 8  # spline against convolution; turned the wrong way it is above 100


def test_background_fills_empty_pixels_with_one_level_an_image(digits: NDArray[np.uint8]) -> None:
    levels = np.random.default_rng(9).integers(0, 100, len(digits))
    expected = digits.copy()
    for image, level in zip(expected, levels, strict=True):
        image[image == 0] = level
    np.testing.assert_array_equal(transform("background", digits, np.random.default_rng(9)), expected)
    assert (levels.min(), levels.max()) == (0, 99)


def test_colour_images_that_are_not_square_are_rotated_in_every_channel_like_scipys() -> None:
    y, x = np.mgrid[:24, :31] - np.array([11.5, 15.0])[:, None, None]
    blobs = [240 * np.exp(-((x - at) ** 2 + (y + 2) ** 2) / 25) for at in (-5, 0, 6)]
    image = np.stack(blobs).round().astype(np.uint8)
    expected = scipy.ndimage.rotate(image.astype(float), -70.0, axes=(1, 2), reshape=False, order=3)
    turned = transform("rotation", image[None], OneAngle(-70.0))[0]
    assert np.abs(turned - expected).max() < 8


def test_background_is_only_where_every_channel_is_0() -> None:
    images = np.zeros((1, 3, 1, 2), dtype=np.uint8)
    images[0, 1, 0, 0] = 7
    filled = transform("background", images, np.random.default_rng(2))
    np.testing.assert_array_equal(filled[0, :, 0, 0], [0, 7, 0])
    assert len(set(filled[0, :, 0, 1].tolist())) == 1 and filled[0, 0, 0, 1] > 0


def test_dilation_and_erosion_are_the_filters_of_scipy(digits: NDArray[np.uint8]) -> None:
    images = np.concatenate([digits[:60], np.flip(digits[:60], axis=2)])
    images[:, :, 0, :] = 200  # something on the border
    rng = np.random.default_rng(4)
    dilated = rng.random(len(images)) < 0.6
    sides = np.where(dilated, rng.integers(2, 5, len(images)), rng.integers(1, 3, len(images)))
    assert {(bool(d), int(s)) for d, s in zip(dilated, sides, strict=True)} == {(True, s) for s in (2, 3, 4)} | {
        (False, s) for s in (1, 2)
    }
    result = transform("dilation-erosion", images, np.random.default_rng(4))
    for image, own, dilate, side in zip(images, result, dilated, sides, strict=True):
        if dilate:
            expected = scipy.ndimage.maximum_filter(image[0], size=int(side), mode="constant", cval=0)
        else:
            expected = scipy.ndimage.minimum_filter(image[0], size=int(side), mode="constant", cval=255)
        np.testing.assert_array_equal(own[0], expected)


def test_each_colour_channel_is_dilated_or_eroded_as_scipy_does_it_in_images_that_are_not_square() -> None:
    images = colour(8, 40)
    rng = np.random.default_rng(3)
    dilated = rng.random(len(images)) < 0.6
    sides = np.where(dilated, rng.integers(2, 5, len(images)), rng.integers(1, 3, len(images)))
    result = transform("dilation-erosion", images, np.random.default_rng(3))
    for image, own, dilate, side in zip(images, result, dilated, sides.tolist(), strict=True):
        square = {"size": (1, side, side), "mode": "constant"}
        if dilate:  # scipy mirrors the square of a dilation: what is before an even one's origin comes after it
            expected = scipy.ndimage.grey_dilation(image, cval=0, origin=(0, *(2 * [side % 2 - 1])), **square)
        else:
            expected = scipy.ndimage.grey_erosion(image, cval=255, **square)
        np.testing.assert_array_equal(own, expected)


def test_three_of_five_images_are_dilated() -> None:
    image = np.zeros((1, 1, 7, 7), dtype=np.uint8)
    image[0, 0, 2:5, 2:5] = 255
    result = transform("dilation-erosion", np.repeat(image, 4000, axis=0), np.random.default_rng(0))
    assert abs((result.sum(axis=(1, 2, 3)) > 9 * 255).mean() - 0.6) < 0.03


@pytest.mark.parametrize("name", NUISANCES)
def test_the_result_depends_on_images_and_generator_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = colour(3, 23)
    images.flags.writeable = False
    whole = transform(name, images, np.random.default_rng(1))
    assert not np.array_equal(whole, transform(name, images, np.random.default_rng(2)))
    monkeypatch.setattr(nuisance, "_CHUNK", 4)
    np.testing.assert_array_equal(transform(name, images, np.random.default_rng(1)), whole)


@pytest.mark.parametrize("name", NUISANCES)
def test_tensors_and_arrays_become_the_same_and_stay_as_they_were(name: str) -> None:
    images = colour(6, 5)
    before = images.copy()
    tensor = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
    from_tensor = transform(name, tensor, np.random.default_rng(1))
    from_array = transform(name, images, np.random.default_rng(1))
    assert from_tensor.dtype == torch.uint8 and from_array.dtype == np.uint8
    np.testing.assert_array_equal(from_tensor.numpy(), from_array)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("name", NUISANCES)
def test_no_images_become_no_images(name: str) -> None:
    assert transform(name, colour(0, 0), np.random.default_rng(0)).shape == (0, 3, 12, 10)


def test_none_changes_nothing() -> None:
    images = colour(0, 2)
    assert transform("none", images, np.random.default_rng(0)) is images


def test_an_unknown_nuisance_is_refused() -> None:
    with pytest.raises(SpecError, match="'rotate'"):
        transform("rotate", colour(0, 1), np.random.default_rng(0))


def test_the_table_has_the_names_that_a_study_file_may_use() -> None:
    assert ("none", *NUISANCES) == get_args(DataSpec.model_fields["nuisance"].annotation)


def test_a_new_nuisance_is_an_entry_of_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fade = Nuisance(
        draw=lambda count, rng: rng.uniform(0, 1, count),
        apply=lambda images, shares: (images * shares.view(-1, 1, 1, 1)).to(torch.uint8),
        statistic="brightness",
    )
    monkeypatch.setitem(NUISANCES, "fade", fade)
    dataset = prepare(DataSpec().model_copy(update={"nuisance": "fade"}), Store(tmp_path))
    shares = numpy_rng(0, "data/nuisance/test").uniform(0, 1, 600)
    expected = (dataset.test.clean * shares[:, None, None, None]).astype(np.uint8)
    np.testing.assert_array_equal(dataset.test.images, expected)
    images = torch.tensor(dataset.test.clean[:4])
    generator = OracleGenerator("fade")
    drawn = generator.draw(generator.encode(images, images), np.random.default_rng(1))
    assert (drawn <= images).all() and not torch.equal(drawn, images)
    draws = np.stack([images.numpy(), drawn.numpy()], 1)
    assert (nuisance_deviations("fade", draws, images.numpy()) > 0).all()
