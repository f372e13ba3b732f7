"""Which images of a split a measure looks at: some of each class, from as many groups as possible."""

import numpy as np
from numpy.typing import NDArray

from gitdist.data.dataset import Split


def choose_rows(split: Split, order: NDArray[np.int64], num_classes: int, images_per_class: int) -> NDArray[np.int64]:
    """Return rows of a split, int64 ``[n]``, ordered by class.

    Of each class the first ``images_per_class`` rows in ``order``; in a grouped split every group gives one image
    before any gives its second. A class with fewer images gives all of them.

    Args:
        split: images with labels and groups.
        order: the rows to choose from, int64 ``[N]``, the preferred ones first.
        num_classes: C.
        images_per_class: the most rows per class.
    """
    chosen = []
    for label in range(num_classes):
        rows = order[split.labels[order] == label]
        if split.groups is not None:
            rows = rows[np.argsort(_occurrences(split.groups[rows]), kind="stable")]
        chosen.append(rows[:images_per_class])
    return np.concatenate(chosen)


def _occurrences(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how often the group of each row has occurred before it, int64 ``[N]``."""
    by_group = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(groups[by_group], return_index=True, return_counts=True)
    occurrences = np.empty(len(groups), dtype=np.int64)
    occurrences[by_group] = np.arange(len(groups)) - np.repeat(starts, counts)
    return occurrences
