"""The 1,797 handwritten digits that come with scikit-learn: the data set that is always at hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate, pad

from gitdist.data.sources.base import Source

_TEST_PER_CLASS = 60


def find(path: str | None) -> Sequence[Path]:
    """Return no file: the images are inside the scikit-learn package."""
    return ()


def where() -> str:
    """Return where the images are, for a reader."""
    return "inside scikit-learn; no files needed"


def read(files: Sequence[Path]) -> Source:
    """Return the digits as 28x28 images; the last 60 of each class, in official order, are the test split.

    The official 8x8 images with levels 0..16 become 24x24 by bilinear interpolation and get a border of 2 pixels;
    levels are stretched to 0..255. Where all neighbours are 0 the background stays exactly 0.
    """
    from sklearn.datasets import load_digits  # a second to import: only who uses digits pays

    bunch = load_digits()
    images, labels = _enlarge(bunch.images), bunch.target.astype(np.int64)
    test = np.zeros(len(labels), dtype=np.bool_)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[-_TEST_PER_CLASS:]] = True
    return Source(
        name="digits",
        train_images=images[~test],
        train_labels=labels[~test],
        test_images=images[test],
        test_labels=labels[test],
        class_names=tuple(str(digit) for digit in range(10)),
    )


def _enlarge(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    levels = torch.from_numpy(images)[:, None] * (255 / 16)
    enlarged = interpolate(levels, size=(24, 24), mode="bilinear", align_corners=False)
    return pad(enlarged, (2, 2, 2, 2)).round().to(torch.uint8).numpy()
