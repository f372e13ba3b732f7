"""What every source delivers, and the rules its arrays keep."""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gitdist.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A data set's official images: uint8 ``[N, C, H, W]``, labels int64 ``[N]`` counted from 0, in official order."""

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def digest(self) -> str:
        """Return the hash of all images, labels and class names."""
        state = hashlib.blake2b("\0".join(self.class_names).encode(), digest_size=16)
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            state.update(f"{array.dtype.str}{array.shape}".encode())
            state.update(np.ascontiguousarray(array).data)
        return state.hexdigest()


def class_counts(labels: NDArray[np.int64], class_names: tuple[str, ...], least: int, where: str) -> NDArray[np.int64]:
    """Return the number of images of each class, ``[C]``.

    Args:
        labels: int64 ``[N]``.
        class_names: the names of the classes that must be there.
        least: the number of images that every class must have.
        where: the file or split, for the message.

    Raises:
        DataError: a label stands for no class, or a class has fewer than ``least`` images.
    """
    num_classes = len(class_names)
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise DataError(f"labels must be 0..{num_classes - 1}, but {where} has {outside[0]}; count classes from 0")
    counts = np.bincount(labels, minlength=num_classes)
    if counts.min() < least:
        poorest = int(counts.argmin())
        raise DataError(
            f"every class must have at least {least} images in {where}, but class {poorest} "
            f"({class_names[poorest]}) has {counts[poorest]}; add images or leave the class out"
        )
    return counts
