"""What every source delivers, and the rules its arrays keep."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.errors import DataError
from gitdist.spec.base import unknown_name


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A data set's official images: uint8 ``[N, C, H, W]``, labels int64 ``[N]`` counted from 0, in official order.

    ``notes`` say, a line each, what was done to the files that they come from.
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def digest(self) -> str:
        """Return the hash of all images, labels, class names and notes."""
        state = hashlib.blake2b("\0".join([*self.class_names, *self.notes]).encode(), digest_size=16)
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            state.update(f"{array.dtype.str}{array.shape}".encode())
            state.update(np.ascontiguousarray(array).data)
        return state.hexdigest()


def without_classes(source: Source, exclude: Sequence[str]) -> Source:
    """Return a source without the images of some classes, the others numbered anew in their order.

    Raises:
        DataError: there is no class of such a name, or a label stands for no class.
    """
    check_excluded(exclude, source.class_names)
    if not exclude:
        return source
    _check_labels(source.train_labels, len(source.class_names), f"the training split of {source.name}")
    _check_labels(source.test_labels, len(source.class_names), f"the test split of {source.name}")
    kept = np.array([name not in exclude for name in source.class_names])
    numbers = np.cumsum(kept) - 1
    train, test = kept[source.train_labels], kept[source.test_labels]
    lost = [
        f"{name} (training images: {int((source.train_labels == source.class_names.index(name)).sum()):,})"
        for name in exclude
    ]
    return replace(
        source,
        train_images=source.train_images[train],
        train_labels=numbers[source.train_labels[train]],
        test_images=source.test_images[test],
        test_labels=numbers[source.test_labels[test]],
        class_names=tuple(name for name in source.class_names if name not in exclude),
        notes=(*source.notes, f"left out by data.exclude: {', '.join(lost)}"),
    )


def check_excluded(exclude: Sequence[str], class_names: Sequence[str]) -> None:
    """Refuse to leave out a class that is not there.

    Raises:
        DataError: there is no class of such a name.
    """
    for name in exclude:
        if name not in class_names:
            raise DataError(f"data.exclude: {unknown_name('class', name, list(class_names))}")


def grey_source(
    arrays: Sequence[NDArray[np.uint8]], files: Sequence[Path], name: str, class_names: tuple[str, ...]
) -> Source:
    """Return a data set of 28x28 grey images.

    Args:
        arrays: training images ``[N, 28, 28]`` and labels ``[N]``, test images and labels.
        files: where each is from, for messages.
        name: the data set's.
        class_names: in the order of the labels.

    Raises:
        DataError: an array has another shape.
    """
    train_images, train_labels, test_images, test_labels = arrays
    for images, labels, file in ((train_images, train_labels, files[0]), (test_images, test_labels, files[2])):
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise DataError(
                f"images and labels must be [N, 28, 28] and [N], but {file} has {list(images.shape)} "
                f"and its label file {list(labels.shape)}; get the files anew"
            )
    return Source(
        name=name,
        train_images=train_images[:, None],
        train_labels=train_labels.astype(np.int64),
        test_images=test_images[:, None],
        test_labels=test_labels.astype(np.int64),
        class_names=class_names,
    )


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
    _check_labels(labels, len(class_names), where)
    counts = np.bincount(labels, minlength=len(class_names))
    if counts.min() < least:
        poorest = int(counts.argmin())
        raise DataError(
            f"every class must have at least {least} images in {where}, but class {poorest} "
            f"({class_names[poorest]}) has {counts[poorest]}; add images or set data.exclude: [{class_names[poorest]}]"
        )
    return counts


def _check_labels(labels: NDArray[np.int64], num_classes: int, where: str) -> None:
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.size:
        raise DataError(f"labels must be 0..{num_classes - 1}, but {where} has {outside[0]}; count classes from 0")
