import numpy as np
from PIL import Image

from gitdist.generator.grid import DRAWS_PER_IMAGE, GAP, LABEL_WIDTH, read_grid, sample_grid, save_grid
from gitdist.generator.oracle import IdentityGenerator, OracleGenerator


def test_each_row_shows_the_label_the_image_and_its_draws(digits):
    picture = sample_grid(IdentityGenerator(), digits, images_per_class=2, draws=3, seed=0)
    side = 56 + GAP
    assert picture.shape == (20 * side, LABEL_WIDTH + 4 * side + GAP, 3)
    assert picture.dtype == np.uint8
    assert (picture[:side, :LABEL_WIDTH] < 128).any()  # the label is written
    row = picture[:56, LABEL_WIDTH:]
    first = row[:, :56]
    starts = [side + GAP + i * side for i in range(3)]
    assert all(np.array_equal(first, row[:, start : start + 56]) for start in starts)
    shown = first[::2, ::2, 0]
    rows = np.flatnonzero((digits.train.images[:, 0] == shown).all((1, 2)))
    assert digits.train.labels[rows].tolist()[:1] == [0]


def test_the_picture_is_a_function_of_the_seed(digits):
    pictures = [sample_grid(OracleGenerator("background"), digits, 1, 2, seed) for seed in (0, 0, 1)]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_a_class_with_fewer_images_has_fewer_rows(digits):
    smallest = int(digits.class_sizes.min())
    picture = sample_grid(IdentityGenerator(), digits, images_per_class=smallest + 1, draws=1, seed=0)
    rows = np.minimum(digits.class_sizes, smallest + 1).sum()
    assert len(picture) == rows * (56 + GAP)


def test_it_is_saved_as_a_png(digits, tmp_path):
    picture = sample_grid(IdentityGenerator(), digits, 1, 1, 0)
    save_grid(picture, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), picture)


def test_the_images_are_read_back(digits):
    picture = sample_grid(IdentityGenerator(), digits, 1, DRAWS_PER_IMAGE, seed=0)
    cells = read_grid(picture)
    assert cells.shape == (10, 1 + DRAWS_PER_IMAGE, 56, 56, 3)
    assert (cells == cells[:, :1]).all()  # each draw is its image
    assert np.array_equal(cells[3, 0], picture[3 * 60 : 3 * 60 + 56, LABEL_WIDTH : LABEL_WIDTH + 56])
    assert read_grid(sample_grid(IdentityGenerator(), digits, 1, 3, seed=0)) is None
