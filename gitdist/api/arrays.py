"""Images and labels of a user's arrays or torch data set, and the npz files that keep them.

    results/store/arrays/<digest>/train.npz, test.npz

The digest is that of the content. No command deletes these files: they may be the only copy.
"""

import hashlib
import operator
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gitdist.api.arguments import check_settings, read_array, read_labels, to_pixels
from gitdist.data import SPLITS
from gitdist.data.sources.base import check_class_names, check_labels
from gitdist.data.sources.npz import check_images
from gitdist.data.sources.own_images import OwnImages
from gitdist.disk import disk_errors
from gitdist.errors import DataError, StoreError, first_line
from gitdist.spec import DataSpec
from gitdist.store.layout import ARRAYS

_MAX_CHANNELS = 4
_MODES = ("L", "RGB", "RGBA")  # of PIL images


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySplit:
    """The images of one split.

    Attributes:
        images: uint8 ``[N, H, W, C]``.
        labels: int64 ``[N]``, from 0.
        groups: of each image; None = each image by itself.
        name: what the user calls the images, for messages.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: tuple[str, ...] | None
    name: str

    def take(self, rows: NDArray[np.int64]) -> "ArraySplit":
        """Return some of the images."""
        groups = None if self.groups is None else tuple(self.groups[row] for row in rows.tolist())
        return replace(self, images=self.images[rows], labels=self.labels[rows], groups=groups)


def read_split(images: Any, labels: Any, groups: Sequence[Any] | None, name: str) -> ArraySplit:
    """Return a split of arrays or tensors; ``name`` is that of the argument ``images``.

    Raises:
        DataError: they are not of the form that ``gitdist.Dataset`` accepts.
        SpecError: likewise, of their values and types.
    """
    if images is None or labels is None:
        raise DataError(f"{name} and their labels must be given together, but one is missing; pass both, or neither")
    pixels = _channels_last(_bytes(images, name), name, is_tensor=isinstance(images, torch.Tensor))
    check_images(pixels, name)
    classes = read_labels(name, "labels", labels)
    for what, values in (("labels", classes), ("groups", groups)):
        if values is not None and len(values) != len(pixels):
            raise DataError(f"{name}: {what} must be {len(pixels)}, one per image, but there are {len(values)}")
    return ArraySplit(
        images=pixels,
        labels=classes,
        groups=None if groups is None else tuple(map(str, groups)),
        name=name,
    )


def read_torch_split(dataset: Any, groups: Sequence[Any] | None, name: str) -> ArraySplit:
    """Return a split of a map-style data set of (image, label).

    Raises:
        DataError: an item is not of the form that ``gitdist.Dataset`` accepts.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")) or not len(dataset):
        raise DataError(f"{name} must be a map-style data set with items, but it is {type(dataset).__name__}")
    images: list[NDArray[np.uint8]] = []
    labels = []
    for index in range(len(dataset)):
        where = f"item {index} of {name}"
        image, label = _read_item(dataset[index], where)
        if images and image.shape != images[0].shape:
            raise DataError(
                f"images must have one size, but {where} is {list(image.shape)} and item 0 {list(images[0].shape)} "
                "(height, width, channels); resize them in the transform"
            )
        images.append(image)
        labels.append(label)
    return read_split(np.stack(images), np.array(labels), groups, name)


def store_arrays(
    store: Path, train: ArraySplit, test: ArraySplit | None, class_names: Sequence[str] | None, test_share: float
) -> Path:
    """Write the splits as npz files into the store, unless it has them; return their folder.

    Args:
        store: its directory.
        train: the training images.
        test: the test images; None = ``test_share`` of each class of ``train``.
        class_names: in the order of the labels; None = 0, 1, ...
        test_share: see ``test``.

    Raises:
        DataError: the splits do not agree, or a class has too few images.
        DiskError: the disk does not take them.
        StoreError: the store cannot be written.
    """
    names = _class_names(train, class_names)
    for split in (train, *([] if test is None else [test])):
        check_labels(split.labels, len(names), split.name)
    if test is None:
        train, test = _split_off_test(train, names, test_share)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"training and test images must have one shape, but they are {list(train.images.shape[1:])} and "
            f"{list(test.images.shape[1:])} (height, width, channels); resize one of them"
        )
    contents = {"train.npz": _npz_arrays(train, names), "test.npz": _npz_arrays(test, names)}
    folder = store / ARRAYS / _digest(contents)
    if not folder.is_dir():
        _write(folder, contents)
    return folder


def _read_item(item: Any, where: str) -> tuple[NDArray[np.uint8], int]:
    try:
        image, label = item
        index = operator.index(label)
    except (TypeError, ValueError) as error:
        found = type(item).__name__
        raise DataError(
            f"an item must be (image, label) with an integer label, but {where} is {found} ({first_line(error)})"
        ) from error
    mode = getattr(image, "mode", None)  # of a PIL image
    if isinstance(mode, str) and mode not in _MODES:
        raise DataError(f"a PIL image must have a mode of {', '.join(_MODES)}, but {where} has {mode}; convert it")
    pixels = _bytes(image, where)
    if pixels.ndim not in (2, 3):
        raise DataError(f"an image must be [H, W], [C, H, W] or [H, W, C], but {where} is {list(pixels.shape)}")
    return _channels_last(pixels[None], where, is_tensor=isinstance(image, torch.Tensor))[0], index


def _bytes(images: Any, name: str) -> NDArray[np.uint8]:
    array = read_array(name, "images", images)
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise DataError(f"images must be uint8, or floats in 0..1, but {name} is {array.dtype}; convert it")
    return np.asarray(to_pixels(name, torch.from_numpy(np.array(array, np.float32))).numpy(), np.uint8)


def _channels_last(images: NDArray[np.uint8], name: str, *, is_tensor: bool) -> NDArray[np.uint8]:
    """Return images as ``[N, H, W, C]``; the class ``gitdist.Dataset`` has the rule."""
    if images.ndim == 3:
        return images[..., None]
    if images.ndim != 4:
        raise DataError(
            f"images must be [N, H, W], [N, H, W, C] or [N, C, H, W], but {name} is {list(images.shape)}; reshape it"
        )
    is_first, is_last = (images.shape[axis] <= _MAX_CHANNELS for axis in (1, 3))
    if not (is_first or is_last):
        raise DataError(f"images must have 1 to {_MAX_CHANNELS} channels, but {name} is {list(images.shape)}")
    return images.transpose(0, 2, 3, 1) if is_first and (is_tensor or not is_last) else images


def _class_names(train: ArraySplit, names: Sequence[str] | None) -> tuple[str, ...]:
    present = np.unique(train.labels)
    found = tuple(map(str, range(len(present)) if names is None else names))
    check_class_names(found, "class_names")
    empty = np.setdiff1d(np.arange(len(found)), present)
    if len(empty):
        raise DataError(f"each class must have training images, but '{found[empty[0]]}' has none; renumber the labels")
    return found


def _split_off_test(train: ArraySplit, names: tuple[str, ...], share: float) -> tuple[ArraySplit, ArraySplit]:
    spec: DataSpec = check_settings("gitdist.Dataset", DataSpec, source="images", test_share=share)
    own = OwnImages(
        class_names=names,
        labels=train.labels,
        splits=np.full(len(train.labels), SPLITS.index("train")),
        groups=train.groups,
        given={"train": train.name},
    )
    rows = own.official_rows(spec)
    return train.take(rows.train), train.take(rows.test)


def _npz_arrays(split: ArraySplit, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {
        "images": np.ascontiguousarray(split.images),
        "labels": split.labels,
        "classes": np.array(names),
    }
    if split.groups is not None:
        arrays["groups"] = np.array(split.groups)
    return arrays


def _digest(contents: dict[str, dict[str, NDArray[Any]]]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for file, arrays in contents.items():
        for name, array in arrays.items():
            state.update(f"{file}{name}{array.dtype.str}{array.shape}".encode())
            state.update(array.view(np.uint8).data if array.dtype.kind == "U" else array.data)
    return state.hexdigest()


def _write(folder: Path, contents: dict[str, dict[str, NDArray[Any]]]) -> None:
    """Write npz files into a new folder, which appears when it is complete."""
    num_bytes = sum(array.nbytes for arrays in contents.values() for array in arrays.values())
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    try:
        with disk_errors(folder, num_bytes):
            part.mkdir(parents=True)
            for file, arrays in contents.items():
                np.savez(part / file, allow_pickle=False, **arrays)
            part.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # another process may have written the same
            raise StoreError(f"{folder} cannot be written ({error.strerror}); pass other results") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
