import numpy as np
from sklearn.datasets import load_digits

from gitdist.data.sources import load_source
from gitdist.spec import DataSpec


def test_the_last_60_of_each_class_are_the_test_split_in_official_order() -> None:
    source, target = load_source(DataSpec()), load_digits().target
    test = np.concatenate([np.flatnonzero(target == digit)[-60:] for digit in range(10)])
    np.testing.assert_array_equal(source.test_labels, target[np.sort(test)])
    np.testing.assert_array_equal(source.train_labels, np.delete(target, test))
    assert np.bincount(source.test_labels).tolist() == [60] * 10


def test_images_are_the_official_ones_enlarged_with_an_empty_border() -> None:
    source, official = load_source(DataSpec()), load_digits().images
    image = source.train_images[0, 0]
    assert source.train_images.shape == (1197, 1, 28, 28) and source.train_images.dtype == np.uint8
    # With a factor of 3 the middle pixel of each 3x3 tile is the official pixel itself.
    np.testing.assert_array_equal(image[3:26:3, 3:26:3], (official[0] * 255 / 16).round())
    assert not image[:2].any() and not image[:, -2:].any()
    assert source.train_images.max() == 255


def test_a_pixel_whose_official_neighbours_are_0_stays_exactly_0() -> None:
    source, official = load_source(DataSpec()), load_digits()
    first = np.pad(official.images[0], 1, mode="edge")
    for row in range(8):
        for column in range(8):
            tile = source.train_images[0, 0, 2 + 3 * row : 5 + 3 * row, 2 + 3 * column : 5 + 3 * column]
            if not first[row : row + 3, column : column + 3].any():
                assert not tile.any()
    assert (source.train_images == 0).mean() > 0.3
