"""A folder of your own images: CLASS/ alone, or train/CLASS/ with val/CLASS/, test/CLASS/ or both (see ``folder``).

Images are turned upright by their EXIF orientation, put on black where they are transparent, resized with the shorter
side to ``data.image_size`` pixels, and cut to the square in the middle. If any is stored in colour, all become RGB. The
order is that of class names, then file names.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gitdist.data.sources.base import Source, group_by_name
from gitdist.data.sources.decoding import (
    attempt_images,
    centre_square,
    eight_bit,
    has_colour,
    map_images,
    on_black,
    upright,
)
from gitdist.data.sources.folder import Images, all_files, read_folder
from gitdist.errors import DataError
from gitdist.spec import DataSpec

_MULTIPLE, _SMALLEST, _LARGEST = 8, 16, 64  # of automatic sizes, pixels
_Header = tuple[tuple[int, int], bool]  # width and height; whether it has colour


def find(path: str | None) -> Sequence[Path]:
    """Return every file in the folder ``path``, images or not.

    Raises:
        DataError: there is no such folder.
    """
    if path is None:
        raise DataError("the source images has no usual place, and data.path is not given; set it to the folder")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"data.path must be a folder with CLASS/, or with train/CLASS/, val/CLASS/, test/CLASS/, but {folder} is "
            "none"
        )
    return all_files(folder)


def where() -> str:
    """Return where the images are, for a reader."""
    return "any folder with CLASS/, or train/CLASS/, val/CLASS/ and test/CLASS/, of PNG, JPEG, ... named by data.path"


def read(files: Sequence[Path], spec: DataSpec) -> Source:
    """Return the images of the folder ``spec.path`` without the classes of ``spec.exclude``.

    Args:
        files: every file in the folder.
        spec: with the image size, the test share and the classes to leave out.

    Raises:
        DataError: an image cannot be read or lies in no class, or a class has too few images.
    """
    root = Path(spec.path or "").expanduser()
    folder = read_folder(root, files, spec)
    train, test = _rows(folder.train, folder.validation), _rows(folder.test)
    every = [*train.files, *test.files]
    headers = [header for header in attempt_images(every, _read_header) if not isinstance(header, Exception)]
    side = spec.image_size or _automatic_side([size for size, _ in headers])
    images, done = _read_images(every, "RGB" if any(colour for _, colour in headers) else "L", side)
    num_train = len(train.files)
    groups = None if folder.groups is None else group_by_name([folder.groups[file] for file in every])
    return Source(
        name=root.name,
        train_images=images[:num_train],
        train_labels=train.labels,
        test_images=images[num_train:],
        test_labels=test.labels,
        class_names=tuple(folder.train),
        notes=(*_size_notes(headers, side), *done, *folder.notes),
        train_groups=None if groups is None else groups.groups[:num_train],
        test_groups=None if groups is None else groups.groups[num_train:],
        group_names=() if groups is None else groups.names,
        validation=train.reserved if folder.validation else None,
    )


def row_names(files: Sequence[Path], spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the files of the training and of the test rows, named from the folder on; the arguments are ``read``'s."""
    root = Path(spec.path or "").expanduser()
    folder = read_folder(root, files, spec)
    train, test = (
        tuple(str(file.relative_to(root)) for file in rows.files)
        for rows in (_rows(folder.train, folder.validation), _rows(folder.test))
    )
    return train, test


@dataclass(frozen=True, eq=False)
class _Rows:
    """Files in the order of their rows, their labels int64 ``[N]``, and whether each is reserved for validation."""

    files: list[Path]
    labels: NDArray[np.int64]
    reserved: NDArray[np.bool_]


def _rows(*splits: Images) -> _Rows:
    """Return the rows of the classes of one split, or of training and, after it, validation."""
    classes = [of_class for split in splits for of_class in split.items()]
    numbers = {name: label for label, name in enumerate(splits[0])}
    sizes = [len(files) for _, files in classes]
    return _Rows(
        files=[file for _, files in classes for file in files],
        labels=np.repeat([numbers[name] for name, _ in classes], sizes),
        reserved=np.arange(sum(sizes)) >= sum(len(files) for files in splits[0].values()),
    )


def _read_header(index: int, image: Image.Image) -> _Header:
    return image.size, has_colour(image)


def _automatic_side(sizes: Sequence[tuple[int, int]]) -> int:
    """Return the median shorter side, at most 64, rounded down to a multiple of 8, at least 16."""
    median = int(np.median([min(size) for size in sizes])) if sizes else _LARGEST
    return max(min(median, _LARGEST) // _MULTIPLE * _MULTIPLE, _SMALLEST)


def _read_images(files: Sequence[Path], mode: str, side: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the images ``[N, C, side, side]`` and notes on what was done to some of them."""
    images = np.empty((len(files), 3 if mode == "RGB" else 1, side, side), dtype=np.uint8)

    def decode(index: int, image: Image.Image) -> list[str]:
        turned = upright(image)
        done = {
            "grey images made RGB": mode == "RGB" and not has_colour(image),
            "images with transparent parts put on black": image.has_transparency_data,
            "images turned upright by their EXIF orientation": turned is not image,
        }
        flat = on_black(eight_bit(turned)).convert(mode)
        images[index] = np.atleast_3d(np.asarray(centre_square(flat, side))).transpose(2, 0, 1)
        return [what for what, was_done in done.items() if was_done]

    counts = Counter(what for done in map_images(files, decode) for what in done)
    return images, [f"{what}: {count:,}" for what, count in sorted(counts.items())]


def _size_notes(headers: Sequence[_Header], side: int) -> list[str]:
    sizes = Counter(size for size, _ in headers)
    (width, height), count = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    if sizes.keys() == {(side, side)}:
        return []
    seen = (
        f"{len(sizes):,} sizes, {width}x{height} in {count:,} of {len(headers):,}"
        if len(sizes) > 1
        else f"{width}x{height}"
    )
    return [f"images of {seen} (width x height) resized to {side}x{side}: shorter side, then the square in the middle"]
