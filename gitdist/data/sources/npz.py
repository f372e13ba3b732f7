"""A folder with one train*.npz and one test*.npz: any images as arrays.

Keys of a file: ``images`` uint8 ``[N, H, W, C]`` with at most 4 channels or ``[N, H, W]``, ``labels`` integers ``[N]``
counted from 0, and optionally ``classes``, the class names, text, UTF-8 bytes or integers, and ``groups`` ``[N]``,
integers or text, the group of each image (object, patient, video): images of one group never lie in two splits. Other
keys are not read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.base import DataSource, SourceImages, number_groups, read_npz, user_folder
from gitdist.errors import DataError
from gitdist.input_file import list_folder
from gitdist.spec import DataSpec

_CONTENTS = "train*.npz and test*.npz"
_MAX_CHANNELS = 4
_TEXT_KINDS = "iuUS"  # of dtypes: integers, text, bytes


@dataclass(frozen=True, kw_only=True)
class _NpzFile:
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]  # () = the file has none
    groups: tuple[str, ...]


class _NpzFolder(DataSource):
    def find(self, spec: DataSpec) -> Sequence[Path]:
        folder = user_folder(spec.path, _CONTENTS)
        return tuple(_find_one(folder, pattern) for pattern in ("train*.npz", "test*.npz"))

    def location(self) -> str:
        return f"any folder with {_CONTENTS}, named by data.path"

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        train, test = (_read_file(file) for file in files)
        if train.images.shape[1:] != test.images.shape[1:]:
            raise DataError(
                f"training and test images must have one shape [C, H, W], but {files[0]} has {train.images.shape[1:]} "
                f"and {files[1]} has {test.images.shape[1:]}; resize one of them"
            )
        if train.classes and test.classes and train.classes != test.classes:
            raise DataError(f"{files[0]} and {files[1]} must name the same classes in the same order, but do not")
        groups, group_names = number_groups([*train.groups, *test.groups])
        return SourceImages(
            name=files[0].parent.name,
            train_images=train.images,
            train_labels=train.labels,
            test_images=test.images,
            test_labels=test.labels,
            class_names=train.classes or test.classes or tuple(str(label) for label in range(train.labels.max() + 1)),
            train_groups=groups[: len(train.groups)] if train.groups else None,
            test_groups=groups[len(train.groups) :] if test.groups else None,
            group_names=group_names,
        )


def _find_one(folder: Path, pattern: str) -> Path:
    found = [folder / entry.name for entry in list_folder(folder) if fnmatchcase(entry.name, pattern)]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(f"the folder of the source npz must have exactly one {pattern}, but {folder} has: {names}")
    return found[0]


def _read_file(file: Path) -> _NpzFile:
    arrays = read_npz(file, ("images", "labels", "classes", "groups"))
    for name in ("images", "labels"):
        if name not in arrays:
            raise DataError(f"{file} must have the key '{name}', but does not; add it")
    images, labels = arrays["images"], arrays["labels"]
    check_images(images, str(file))
    count = len(images)
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        found = f"{labels.dtype} {list(labels.shape)}"
        raise DataError(f"labels must be integers [{count}], but {file} has {found}; provide one per image")
    if labels.min() < 0 or labels.max() >= count:
        found = f"labels from {labels.min()} to {labels.max()} for {count} images"
        raise DataError(f"labels must count the classes from 0, but {file} has {found}; renumber them")
    groups = arrays.get("groups")
    if groups is not None and (groups.dtype.kind not in _TEXT_KINDS or groups.shape != (count,)):
        found = f"{groups.dtype} {list(groups.shape)}"
        raise DataError(f"groups must be integers or text [{count}], but {file} has {found}; provide one per image")
    classes = arrays.get("classes")
    if classes is not None and (classes.dtype.kind not in _TEXT_KINDS or classes.ndim != 1 or not len(classes)):
        found = f"{classes.dtype} {list(classes.shape)}"
        raise DataError(f"classes must be text, one name per class, but {file} has {found}; save them as text")
    return _NpzFile(
        images=channels_first(images),
        labels=labels.astype(np.int64),
        classes=_text(arrays, "classes", file),
        groups=_text(arrays, "groups", file),
    )


def check_images(images: NDArray[np.generic], where: str) -> None:
    """Raise DataError if images are not uint8 ``[N, H, W, C]`` with at most 4 channels, or ``[N, H, W]``.

    ``where`` is what has them, for messages.
    """
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.size == 0:
        found = f"{images.dtype} {list(images.shape)}"
        raise DataError(f"images must be uint8 [N, H, W, C] or [N, H, W], but {where} has {found}; convert them")
    if images.ndim == 4 and images.shape[3] > _MAX_CHANNELS:
        remedy = "save images.transpose(0, 2, 3, 1)" if images.shape[1] <= _MAX_CHANNELS else "convert them"
        raise DataError(
            f"images must be [N, H, W, C] with at most {_MAX_CHANNELS} channels C, but {where} has "
            f"{list(images.shape)}; {remedy}"
        )


def channels_first(images: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return images ``[N, H, W, C]`` or ``[N, H, W]`` as ``[N, C, H, W]``."""
    with_channels = images if images.ndim == 4 else images[..., None]
    return np.ascontiguousarray(with_channels.transpose(0, 3, 1, 2), dtype=np.uint8)


def _text(arrays: Mapping[str, NDArray[np.generic]], key: str, file: Path) -> tuple[str, ...]:
    """Return the values of an array as text; () if the file does not have it."""
    if key not in arrays:
        return ()
    try:
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in arrays[key].ravel())
    except UnicodeDecodeError as error:
        message = f"{key} must be text or UTF-8 bytes, but {file} has {error.object!r}; save the names as text"
        raise DataError(message) from error


NPZ = _NpzFolder()
