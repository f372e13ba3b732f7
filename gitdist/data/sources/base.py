"""What every source delivers, and the rules its arrays keep."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.errors import DataError
from gitdist.spec.base import unknown_name


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A data set's official images: uint8 ``[N, C, H, W]``, labels int64 ``[N]`` counted from 0, in official order.

    Attributes:
        name: of the data set.
        train_images: uint8 ``[N, C, H, W]``.
        train_labels: int64 ``[N]``.
        test_images: uint8 ``[M, C, H, W]``.
        test_labels: int64 ``[M]``.
        class_names: in the order of the labels.
        notes: one line per thing that was done to the files.
        train_groups: int64 ``[N]``, positions in ``group_names``; None = each image is a group by itself.
        test_groups: int64 ``[M]``, the same for the test images.
        group_names: of all groups.
        validation: bool ``[N]``, the training images that the source itself reserves for validation; None = it
            reserves none.
        keeps_order: the first images of each class are its training images (a published convention); otherwise they
            are chosen at random.
        repeats: a class with fewer images than its profile asks for repeats them, each under a fresh nuisance.
    """

    name: str
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    train_groups: NDArray[np.int64] | None = None
    test_groups: NDArray[np.int64] | None = None
    group_names: tuple[str, ...] = ()
    validation: NDArray[np.bool_] | None = None
    keeps_order: bool = False
    repeats: bool = False

    def digest(self) -> str:
        """Return the hash of everything in it but its name, which may be that of a folder."""
        state = hashlib.blake2b(digest_size=16)
        for entry in fields(self)[1:]:
            value = getattr(self, entry.name)
            if isinstance(value, np.ndarray):
                state.update(f"{entry.name}{value.dtype.str}{value.shape}".encode())
                state.update(np.ascontiguousarray(value).data)
            else:
                state.update(f"{entry.name}{value!r}".encode())
        return state.hexdigest()


@dataclass(frozen=True, eq=False)
class NamedGroups:
    """The group of each image, int64 ``[N]``, as its position in ``names``."""

    groups: NDArray[np.int64]
    names: tuple[str, ...]


def group_by_name(names: Sequence[str]) -> NamedGroups:
    """Return the groups of images whose groups have these names, ``[N]``."""
    positions = {name: position for position, name in enumerate(dict.fromkeys(names))}
    return NamedGroups(np.array([positions[name] for name in names], dtype=np.int64), tuple(positions))


def without_groups(source: Source) -> Source:
    """Return a source in which each image is a group by itself."""
    return replace(source, train_groups=None, test_groups=None, group_names=())


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
        train_groups=None if source.train_groups is None else source.train_groups[train],
        validation=None if source.validation is None else source.validation[train],
        test_images=source.test_images[test],
        test_labels=numbers[source.test_labels[test]],
        test_groups=None if source.test_groups is None else source.test_groups[test],
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
