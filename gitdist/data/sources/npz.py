"""A folder with one train*.npz and one test*.npz: any images as arrays.

Keys of a file: ``images`` uint8 ``[N, H, W, C]`` or ``[N, H, W]``, ``labels`` integers ``[N]`` counted from 0, and
optionally ``classes``, the class names, text or UTF-8 bytes, and ``groups`` ``[N]``, integers or text, the group of
each image (object, patient, video): images of one group never lie in two splits. Other keys are not read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.base import DataSource, SourceImages, number_groups, read_npz
from gitdist.errors import DataError
from gitdist.spec import DataSpec

Arrays = Mapping[str, NDArray[np.generic]]


class _NpzFolder(DataSource):
    def find(self, path: str | None) -> Sequence[Path]:
        if path is None:
            raise DataError("data.path is not given; set it to the folder with train*.npz and test*.npz")
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise DataError(f"data.path must be a folder with train*.npz and test*.npz, but {folder} is not a folder")
        return tuple(_find_one(folder, pattern) for pattern in ("train*.npz", "test*.npz"))

    def location(self) -> str:
        return "any folder with train*.npz and test*.npz, named by data.path"

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        train, test = (_read_file(file) for file in files)
        train_images, test_images = (_images(arrays, file) for arrays, file in zip((train, test), files, strict=True))
        if train_images.shape[1:] != test_images.shape[1:]:
            raise DataError(
                f"training and test images must have one shape [C, H, W], but {files[0]} has {train_images.shape[1:]} "
                f"and {files[1]} has {test_images.shape[1:]}; resize one of them"
            )
        train_labels, test_labels = _labels(train, files[0]), _labels(test, files[1])
        train_classes, test_classes = _text(train, "classes", files[0]), _text(test, "classes", files[1])
        if train_classes and test_classes and train_classes != test_classes:
            raise DataError(f"{files[0]} and {files[1]} must name the same classes in the same order, but do not")
        train_names, test_names = _groups(train, files[0]), _groups(test, files[1])
        groups, group_names = number_groups([*train_names, *test_names])
        return SourceImages(
            name=files[0].parent.name,
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
            class_names=train_classes or test_classes or tuple(str(label) for label in range(train_labels.max() + 1)),
            train_groups=groups[: len(train_names)] if train_names else None,
            test_groups=groups[len(train_names) :] if test_names else None,
            group_names=group_names,
        )


def _find_one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(f"the folder of the source npz must have exactly one {pattern}, but {folder} has: {names}")
    return found[0]


def _read_file(file: Path) -> Arrays:
    arrays = read_npz(file, ("images", "labels", "classes", "groups"))
    for name in ("images", "labels"):
        if name not in arrays:
            raise DataError(f"a source file must have the key '{name}', but {file} does not; add it")
    return arrays


def _images(arrays: Arrays, file: Path) -> NDArray[np.uint8]:
    images = arrays["images"]
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.size == 0:
        raise DataError(
            f"images must be uint8 [N, H, W, C] or [N, H, W], but {file} has {images.dtype} {list(images.shape)}"
        )
    with_channels = images if images.ndim == 4 else images[..., None]
    return np.ascontiguousarray(with_channels.transpose(0, 3, 1, 2), dtype=np.uint8)


def _labels(arrays: Arrays, file: Path) -> NDArray[np.int64]:
    labels, count = arrays["labels"], len(arrays["images"])
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError(
            f"labels must be integers [{count}], one per image, but {file} has {labels.dtype} {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= count:
        raise DataError(
            f"labels must count the classes from 0, but {file} with {count} images has labels from {labels.min()} "
            f"to {labels.max()}; renumber them"
        )
    return labels.astype(np.int64)


def _groups(arrays: Arrays, file: Path) -> tuple[str, ...]:
    if "groups" in arrays:
        groups, count = arrays["groups"], len(arrays["images"])
        if groups.dtype.kind not in "iuUS" or groups.shape != (count,):
            raise DataError(
                f"groups must be integers or text [{count}], one per image, but {file} has {groups.dtype} "
                f"{list(groups.shape)}"
            )
    return _text(arrays, "groups", file)


def _text(arrays: Arrays, key: str, file: Path) -> tuple[str, ...]:
    """Return the values of an array as text; () if the file does not have it."""
    if key not in arrays:
        return ()
    try:
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in arrays[key].ravel())
    except UnicodeDecodeError as error:
        raise DataError(
            f"{key} must be text or UTF-8 bytes, but {file} has {error.object!r}; save the names as text"
        ) from error


NPZ = _NpzFolder()
