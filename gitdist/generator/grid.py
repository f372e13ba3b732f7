"""A picture of a generator's draws: one labelled row per image, the image first and its draws after it."""

import io
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gitdist import bounds
from gitdist.bounds import rows_within
from gitdist.data.dataset import Dataset
from gitdist.disk import write_atomic
from gitdist.generator.base import Generator
from gitdist.seeds import numpy_rng

CELL = 56  # smallest side of an image in the picture, pixels
GAP = 4
LABEL_WIDTH = 96
DRAWS_PER_IMAGE = 8  # in the picture of a study's generator


def sample_grid(
    generator: Generator,
    dataset: Dataset,
    images_per_class: int,
    draws: int,
    seed: int,
    oracle: Generator | None = None,
) -> NDArray[np.uint8]:
    """Return a picture of training images and ``draws`` of each, RGB uint8 ``[H, W, 3]``.

    A class with fewer than ``images_per_class`` images has fewer rows. If all rows have more than ``PICTURE_BYTES``,
    rows are left out at equal distances. Draws of ``oracle`` are on the right, after the
    images before the nuisance. ``seed`` determines the choice of images and the draws.
    """
    rows = _choose_rows(dataset.train.labels, images_per_class, seed)
    rows = rows[spread(len(rows), (1 + draws) * math.prod(dataset.image_shape))]
    images, clean = (torch.from_numpy(part[rows]) for part in (dataset.train.images, dataset.train.clean))
    blocks = [(images, generator)] if oracle is None else [(images, generator), (clean, oracle)]
    pictures: list[NDArray[np.uint8]] = []
    for first, drawing in blocks:
        codes = drawing.encode(images, clean).repeat_interleave(draws, 0)
        drawn = drawing.draw(codes, numpy_rng(seed, "grid/draws"))
        cells = torch.cat((first[:, None], drawn.view(len(rows), draws, *drawn.shape[1:])), 1).numpy()
        margin = 3 * GAP if pictures else 0
        pictures.append(np.pad(_tile(cells, num_inputs=1), ((0, 0), (margin, 0), (0, 0)), constant_values=255))
    return _with_labels(np.concatenate(pictures, 1), [dataset.class_names[i] for i in dataset.train.labels[rows]])


def read_grid(picture: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the images of a picture of ``sample_grid`` without ``oracle``, whose images are square.

    Args:
        picture: RGB uint8 ``[H, W, 3]``, with ``DRAWS_PER_IMAGE`` draws per image.

    Returns:
        uint8 ``[rows, 1 + draws, h, w, 3]``; None for another picture.
    """
    columns = 1 + DRAWS_PER_IMAGE
    step, rest = divmod(picture.shape[1] - LABEL_WIDTH - GAP, columns)
    if rest or step <= GAP or picture.shape[0] % step:
        return None
    images = np.delete(picture[:, LABEL_WIDTH:], np.s_[step : step + GAP], axis=1)
    cells = images.reshape(-1, step, columns, step, 3).transpose(0, 2, 1, 3, 4)
    return cells[:, :, : step - GAP, : step - GAP]


def spread(num_rows: int, row_bytes: int) -> NDArray[np.int64]:
    """Return which rows of a picture are shown: as many as ``PICTURE_BYTES`` hold, at equal distances."""
    shown = min(num_rows, rows_within(bounds.PICTURE_BYTES, row_bytes))
    return np.linspace(0, num_rows - 1, shown).astype(np.int64)


def draw_rows(cells: NDArray[np.uint8], labels: list[str]) -> NDArray[np.uint8]:
    """Return a picture, RGB uint8 ``[H, W, 3]``, of images ``[rows, columns, C, H, W]`` with a label before each row.

    Small images are enlarged by an integer factor; a label may have several lines.
    """
    return _with_labels(_tile(cells, num_inputs=0), labels)


def save_grid(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture, RGB uint8 ``[H, W, 3]``, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())


def _choose_rows(labels: NDArray[np.int64], images_per_class: int, seed: int) -> NDArray[np.int64]:
    """Return the first rows of each class in a shuffled order, sorted by class."""
    order = numpy_rng(seed, "grid/rows").permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    rank_in_class = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[rank_in_class < images_per_class]


def _tile(cells: NDArray[np.uint8], num_inputs: int) -> NDArray[np.uint8]:
    """Lay ``[rows, columns, C, H, W]`` out as RGB with gaps, the one after ``num_inputs`` columns twice as wide."""
    zoom = max(1, -(-CELL // cells.shape[-1]))
    large = cells.repeat(zoom, axis=3).repeat(zoom, axis=4)
    padded = np.pad(large, ((0, 0), (0, 0), (0, 0), (0, GAP), (0, GAP)), constant_values=255)
    rows, columns, channels, height, width = padded.shape
    picture = padded.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    picture = np.insert(picture, [num_inputs * width] * GAP, 255, axis=1)
    return np.broadcast_to(picture, (*picture.shape[:2], 3)) if channels == 1 else picture


def _with_labels(picture: NDArray[np.uint8], labels: list[str]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (LABEL_WIDTH + width, height), "white")
    canvas.paste(Image.fromarray(np.ascontiguousarray(picture)), (LABEL_WIDTH, 0))
    draw = ImageDraw.Draw(canvas)
    step = height // len(labels)
    for index, label in enumerate(labels):
        lines = "\n".join(line[:14] for line in label.splitlines())
        draw.text((GAP, index * step + step // 2), lines, fill="black", anchor="lm")
    return np.asarray(canvas)
