"""A sheet of a data set: a row a class with its name, its size and its first training images."""

import numpy as np
from numpy.typing import NDArray

from gitdist.data.dataset import Dataset
from gitdist.generator.grid import draw_rows


def thumbnail_sheet(dataset: Dataset, images_per_class: int = 10) -> NDArray[np.uint8]:
    """Return the sheet, RGB uint8 ``[H, W, 3]``, the largest class on top.

    Args:
        dataset: whose training images are shown, with their nuisance.
        images_per_class: the most images in a row.
    """
    columns = min(images_per_class, int(dataset.class_sizes.max()))
    cells = np.full((dataset.num_classes, columns, *dataset.image_shape), 255, dtype=np.uint8)
    order = (-dataset.class_sizes).argsort(kind="stable")
    for row, label in enumerate(order):
        images = dataset.train.images[np.flatnonzero(dataset.train.labels == label)[:columns]]
        cells[row, : len(images)] = images
    names = [f"{dataset.class_names[label]}\n{dataset.class_sizes[label]:,} images" for label in order]
    return draw_rows(cells, names)
