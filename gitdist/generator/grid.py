"""A picture of what a generator does: one labelled row an image, the image first and its draws after it."""

import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from gitdist.data.dataset import Dataset
from gitdist.disk import write_atomic
from gitdist.generator.base import Generator
from gitdist.seeds import numpy_rng

CELL = 56  # least side of an image in the picture, pixels
GAP = 4
LABEL_WIDTH = 96


def sample_grid(
    generator: Generator,
    dataset: Dataset,
    images_per_class: int,
    draws: int,
    seed: int,
    oracle: Generator | None = None,
) -> NDArray[np.uint8]:
    """Return a picture of training images and draws, RGB uint8 ``[H, W, 3]``.

    Args:
        generator: what draws.
        dataset: whose training images are shown, some of each class.
        images_per_class: rows a class (fewer where it has fewer images).
        draws: columns after the input.
        seed: of the choice of images and of the draws.
        oracle: draws from the true nuisance; its draws stand on the right, after the images before the nuisance.
    """
    rows = _choose_rows(dataset.train.labels, images_per_class, seed)
    images, clean = (torch.from_numpy(part[rows]) for part in (dataset.train.images, dataset.train.clean))
    blocks = [(images, generator)] if oracle is None else [(images, generator), (clean, oracle)]
    pictures = []
    for first, drawing in blocks:
        codes = drawing.encode(images, clean).repeat_interleave(draws, 0)
        drawn = drawing.draw(codes, numpy_rng(seed, "grid/draws"))
        cells = torch.cat((first[:, None], drawn.view(len(rows), draws, *drawn.shape[1:])), 1).numpy()
        pictures.append(_tile(cells, num_inputs=1))
    labels = [dataset.class_names[label] for label in dataset.train.labels[rows]]
    picture = np.concatenate([_set_apart(picture) if index else picture for index, picture in enumerate(pictures)], 1)
    return _with_labels(picture, labels)


def draw_rows(cells: NDArray[np.uint8], labels: list[str]) -> NDArray[np.uint8]:
    """Return a picture, RGB uint8 ``[H, W, 3]``, of images ``[rows, columns, C, H, W]`` with a label before each row.

    Small images are enlarged by a whole factor; a label may have several lines.
    """
    return _with_labels(_tile(cells, num_inputs=0), labels)


def save_grid(picture: NDArray[np.uint8], path: Path) -> None:
    """Write a picture, RGB uint8 ``[H, W, 3]``, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    write_atomic(path, buffer.getvalue())


def _choose_rows(labels: NDArray[np.int64], images_per_class: int, seed: int) -> NDArray[np.int64]:
    """The first rows of each class in a shuffled order, sorted by class."""
    order = numpy_rng(seed, "grid/rows").permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    sizes = np.bincount(labels)
    place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[place < images_per_class]


def _tile(cells: NDArray[np.uint8], num_inputs: int) -> NDArray[np.uint8]:
    """Lay ``[rows, columns, C, H, W]`` out as RGB with gaps, the one after ``num_inputs`` columns twice as wide."""
    zoom = max(1, -(-CELL // cells.shape[-1]))
    large = cells.repeat(zoom, axis=3).repeat(zoom, axis=4)
    padded = np.pad(large, ((0, 0), (0, 0), (0, 0), (0, GAP), (0, GAP)), constant_values=255)
    rows, columns, channels, height, width = padded.shape
    picture = padded.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    picture = np.insert(picture, [num_inputs * width] * GAP, 255, axis=1)
    return np.broadcast_to(picture, (*picture.shape[:2], 3)) if channels == 1 else picture


def _set_apart(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.pad(picture, ((0, 0), (3 * GAP, 0), (0, 0)), constant_values=255)


def _with_labels(picture: NDArray[np.uint8], labels: list[str]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (LABEL_WIDTH + width, height), "white")
    canvas.paste(Image.fromarray(np.ascontiguousarray(picture)), (LABEL_WIDTH, 0))
    pen = ImageDraw.Draw(canvas)
    step = height // len(labels)
    for index, label in enumerate(labels):
        lines = "\n".join(line[:14] for line in label.splitlines())
        pen.text((GAP, index * step + step // 2), lines, fill="black", anchor="lm")
    return np.asarray(canvas)
