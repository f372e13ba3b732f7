"""Finds exact duplicates: images of one data set that are equal byte for byte."""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from gitdist.data.dataset import Dataset


@dataclass(frozen=True)
class OfficialImage:
    """An image by its row in the official split and its label."""

    row: int
    label: int


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The training or validation image and the test image of each pair across splits, and a count of repeats.

    ``within`` counts the training and validation images that repeat an earlier one.
    """

    across: tuple[tuple[OfficialImage, OfficialImage], ...]
    within: int


def find_duplicates(dataset: Dataset) -> Duplicates:
    """Compare the images before the nuisance; an image that a profile repeats in a small class counts once."""
    parts = (dataset.train, dataset.validation)
    rows, first = np.unique(np.concatenate([part.source for part in parts]), return_index=True)
    labels = np.concatenate([part.labels for part in parts])
    digests = [_digest(image) for part in parts for image in part.clean]
    seen: dict[bytes, OfficialImage] = {}
    for row, index in zip(rows.tolist(), first.tolist(), strict=True):
        seen.setdefault(digests[index], OfficialImage(row, int(labels[index])))
    test = dataset.test
    across = [
        (seen[digest], OfficialImage(row, label))
        for row, label, digest in zip(test.source.tolist(), test.labels.tolist(), map(_digest, test.clean), strict=True)
        if digest in seen
    ]
    return Duplicates(across=tuple(across), within=len(rows) - len(seen))


def _digest(image: np.ndarray) -> bytes:
    return blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()
