"""A folder with one train*.npz and one test*.npz: the way to bring any images.

Keys of a file: ``images`` uint8 ``[N, H, W, C]`` or ``[N, H, W]``, ``labels`` integers ``[N]`` counted from 0, and
optionally ``classes``, the class names, text or UTF-8 bytes, and ``groups`` ``[N]``, integers or text, the group of
each image (object, patient, video): images of one group never lie in two splits. Other keys are not read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.sources.base import Source, group_by_name
from gitdist.errors import DataError, first_line


@dataclass(frozen=True, kw_only=True)
class _Part:
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...] | None
    groups: tuple[str, ...] | None


def find(path: str | None) -> Sequence[Path]:
    """Return the training and the test file of the folder ``path``.

    Raises:
        DataError: there is no such folder, or not exactly one file of each kind in it.
    """
    if path is None:
        raise DataError("the source npz has no usual place, and data.path is not given; set it to the folder")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(f"data.path must be a folder with train*.npz and test*.npz, but {folder} is none")
    return tuple(_only_one(folder, pattern) for pattern in ("train*.npz", "test*.npz"))


def where() -> str:
    """Return where the images are, for a reader."""
    return "any folder with train*.npz and test*.npz, named by data.path"


def read(files: Sequence[Path]) -> Source:
    """Return the images of the training and the test file.

    Raises:
        DataError: a file is damaged or breaks the form above, or the two do not go together.
    """
    train, test = (_read_part(file) for file in files)
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(
            f"training and test images must have one shape [C, H, W], but {files[0]} has {train.images.shape[1:]} "
            f"and {files[1]} has {test.images.shape[1:]}; resize one of them"
        )
    if train.classes and test.classes and train.classes != test.classes:
        raise DataError(f"{files[0]} and {files[1]} must name the same classes in the same order, but do not")
    both = group_by_name([*(train.groups or ()), *(test.groups or ())])
    num_train = len(train.groups or ())
    numbered = tuple(str(label) for label in range(int(train.labels.max()) + 1))
    return Source(
        name=files[0].parent.name,
        train_images=train.images,
        train_labels=train.labels,
        test_images=test.images,
        test_labels=test.labels,
        class_names=train.classes or test.classes or numbered,
        train_groups=both.groups[:num_train] if train.groups else None,
        test_groups=both.groups[num_train:] if test.groups else None,
        group_names=both.names,
    )


def read_arrays(file: Path, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Return those arrays of an npz file that it has among ``names``.

    Raises:
        DataError: the file is damaged or holds more than plain arrays.
    """
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: _array(archive[name], name) for name in names if name in archive}
    except Exception as error:  # a damaged file raises whatever its bytes happen to ask for
        reason = first_line(error)
        if "pickle" in reason:  # numpy's advice is to allow it, which runs code in the file
            reason = "it holds pickled objects"
        raise DataError(
            f"a source file must be a whole npz of plain arrays, but {file} is not ({reason}); replace it"
        ) from error


def _array(member: object, name: str) -> NDArray[np.generic]:
    if not isinstance(member, np.ndarray):  # numpy gives the bytes of what does not begin as an array does
        raise ValueError(f"its {name} is no array")
    return member


def _only_one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise DataError(f"the folder of the source npz must have exactly one {pattern}, but {folder} has: {names}")
    return found[0]


def _read_part(file: Path) -> _Part:
    arrays = read_arrays(file, ("images", "labels", "classes", "groups"))
    for name in ("images", "labels"):
        if name not in arrays:
            raise DataError(f"a source file must have the key '{name}', but {file} has not; add it")
    return _Part(
        images=_checked_images(arrays["images"], file),
        labels=_checked_labels(arrays, file),
        classes=_text(arrays["classes"], "classes", file) if "classes" in arrays else None,
        groups=_checked_groups(arrays, file) if "groups" in arrays else None,
    )


def _text(names: NDArray[np.generic], key: str, file: Path) -> tuple[str, ...]:
    try:
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names.ravel())
    except UnicodeDecodeError as error:
        raise DataError(
            f"{key} must be text or UTF-8 bytes, but {file} has {error.object!r}; save the names as text"
        ) from error


def _checked_groups(arrays: dict[str, NDArray[np.generic]], file: Path) -> tuple[str, ...]:
    groups, count = arrays["groups"], len(arrays["images"])
    if groups.dtype.kind not in "iuUS" or groups.shape != (count,):
        raise DataError(
            f"groups must be integers or text [{count}], one per image, but {file} has {groups.dtype} "
            f"{list(groups.shape)}"
        )
    return _text(groups, "groups", file)


def _checked_images(images: NDArray[np.generic], file: Path) -> NDArray[np.uint8]:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or images.size == 0:
        raise DataError(
            f"images must be uint8 [N, H, W, C] or [N, H, W], but {file} has {images.dtype} {list(images.shape)}"
        )
    with_channels = images if images.ndim == 4 else images[..., None]
    return np.ascontiguousarray(with_channels.transpose(0, 3, 1, 2), dtype=np.uint8)


def _checked_labels(arrays: dict[str, NDArray[np.generic]], file: Path) -> NDArray[np.int64]:
    labels, count = arrays["labels"], len(arrays["images"])
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError(
            f"labels must be integers [{count}], one an image, but {file} has {labels.dtype} {list(labels.shape)}"
        )
    if labels.min() < 0 or labels.max() >= count:
        raise DataError(
            f"labels must count the classes from 0, but {file} with {count} images has labels from {labels.min()} "
            f"to {labels.max()}; number them anew"
        )
    return labels.astype(np.int64)
