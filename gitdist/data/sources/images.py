"""A folder of the user's own images: CLASS/ alone, or train/CLASS/ with val/CLASS/, test/CLASS/ or both.

If the folder has train/, and val/ (or valid/, validation/) or test/ or no other folder, images lie in SPLIT/CLASS/ and
these splits are used; otherwise images lie in CLASS/. Without test/, ``test_share * n``, rounded down, of the n images
of each class become its test images: at least 1, and some are left for the other splits. This random choice depends on
the class's name, n and its groups alone. With a rule for groups, images may also lie in folders below CLASS/.

Images are turned upright by their EXIF orientation, put on black where they are transparent, resized with the shorter
side to ``data.image_size`` pixels, and cropped to the square in the middle. If any is stored in colour, all become RGB.
They are ordered by class name, then file name.

    what an image is                               outcome
    PNG, JPEG, BMP, PPM, PGM, WebP; .JPG, .PNG     read
    1 bit, grey, palette, RGB                      read; grey ones become RGB, with a note, if any image has colour
    CMYK                                           converted to RGB, with a note
    16 bits per channel                            the upper 8 bits are used, with a note
    transparent, also in a palette                 put on black, with a note
    turned by its EXIF orientation                 turned upright, with a note
    animated PNG or WebP                           its first frame is used, with a note
    several sizes or shapes, 1 pixel wide          resized and cropped, with a note
    GIF, TIFF, HEIC, AVIF, ... by name or content  refused
    empty, truncated, damaged, floating-point      refused
    a web page, a git-LFS pointer, other content   refused
    more than 179 million pixels, also resized     refused
    a pipe, a socket, a device, a broken link      refused
    without permission, or changed while read      refused
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from gitdist.data.holdout import hold_out
from gitdist.data.longtail import floor
from gitdist.data.path_groups import name_groups
from gitdist.data.sources.base import (
    DataSource,
    SourceImages,
    check_class_names,
    check_excluded,
    exclusion,
    map_images,
    number_groups,
    user_folder,
)
from gitdist.errors import DataError
from gitdist.input_file import check_memory, expand_home, input_status, is_folder, list_folder
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec

_CONTENTS = "CLASS/, or train/CLASS/, val/CLASS/ and test/CLASS/"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".pnm", ".webp")
_UNSUPPORTED = (
    *(".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".tga", ".pfm", ".dcm"),
    *(".jfif", ".jpe", ".apng", ".dib"),  # they have a usual name
)
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}

_MULTIPLE, _SMALLEST, _LARGEST = 8, 16, 64  # of automatic sizes, pixels
_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow refuses larger files
_ORIENTATION = 0x0112  # EXIF tag; 1 = upright
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

ClassFiles = Mapping[str, Sequence[Path]]  # the files of each class, in the order of the labels
Header = tuple[tuple[int, int], bool]  # width and height; whether it has colour


@dataclass(frozen=True, kw_only=True)
class _Splits:
    """The files of each class of each split, their groups (None = no groups), and notes on files that are not used."""

    train: ClassFiles
    validation: ClassFiles  # empty if the folder has no such split
    test: ClassFiles
    groups: Mapping[Path, str] | None
    notes: tuple[str, ...]


class _ImageFolder(DataSource):
    def find(self, path: str | None) -> Sequence[Path]:
        return _list_files(user_folder(path, _CONTENTS))

    def location(self) -> str:
        return f"any folder with {_CONTENTS}, of PNG, JPEG, ... named by data.path"

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        splits = _split_folder(files, spec)
        train, train_labels = _flatten(splits.train, splits.validation)
        test, test_labels = _flatten(splits.test)
        headers = map_images([*train, *test], lambda _, image: (image.size, _has_colour(image)))
        side = spec.image_size or _automatic_side([size for size, _ in headers])
        mode = "RGB" if any(colour for _, colour in headers) else "L"
        images, image_notes = _read_images([*train, *test], mode, side)
        groups, group_names = number_groups([splits.groups[file] for file in [*train, *test]] if splits.groups else [])
        num_training = sum(map(len, splits.train.values()))
        return SourceImages(
            name=_root(spec).name,
            train_images=images[: len(train)],
            train_labels=train_labels,
            test_images=images[len(train) :],
            test_labels=test_labels,
            class_names=tuple(splits.train),
            notes=(*_size_notes(headers, side), *image_notes, *splits.notes),
            train_groups=groups[: len(train)] if splits.groups else None,
            test_groups=groups[len(train) :] if splits.groups else None,
            group_names=group_names,
            validation=np.arange(len(train)) >= num_training if splits.validation else None,
        )

    read_selected = read  # leaves the excluded classes out before it decodes

    def row_names(self, files: Sequence[Path], spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
        splits, root = _split_folder(files, spec), _root(spec)
        (train, _), (test, _) = _flatten(splits.train, splits.validation), _flatten(splits.test)
        return tuple(str(file.relative_to(root)) for file in train), tuple(str(file.relative_to(root)) for file in test)


def _root(spec: DataSpec) -> Path:
    return expand_home(spec.path or "")


def _list_files(root: Path) -> list[Path]:
    """Return the files in a folder and below it, links to folders included, by path.

    Raises:
        DataError: a folder cannot be listed, or a link leads back to a folder above it, and so on without end.
    """
    files: list[Path] = []
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while waiting:
        folder, above = waiting.pop()
        try:
            identity = _identity(folder)
            entries = [(Path(entry.path), is_folder(entry)) for entry in list_folder(folder)]
        except DataError:
            if _is_hidden(folder.relative_to(root)):  # its files are not read
                continue
            raise
        if identity in above:
            raise DataError(f"a link must not lead back to a folder above it, but {folder} does; remove the link")
        waiting += [(path, above | {identity}) for path, is_below in entries if is_below]
        files += [path for path, is_below in entries if not is_below]
    return sorted(files)


def _identity(folder: Path) -> tuple[int, int]:
    status = input_status(folder)
    return (status.st_dev, status.st_ino) if status else (0, 0)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _flatten(*splits: ClassFiles) -> tuple[list[Path], NDArray[np.int64]]:
    """Return the files of some splits and their labels, int64 ``[N]``."""
    labelled = [(file, label) for split in splits for label, files in enumerate(split.values()) for file in files]
    return [file for file, _ in labelled], np.array([label for _, label in labelled], dtype=np.int64)


def _split_folder(files: Sequence[Path], spec: DataSpec) -> _Splits:
    root = _root(spec)
    split_folders = _find_splits(root)
    names = sorted({entry.name for of in split_folders.values() for folder in of for entry in _subfolders(folder)})
    check_excluded(spec.exclude, names)
    class_names = [name for name in names if name not in spec.exclude]
    if not class_names:
        found = "none but those of data.exclude" if names else "none"
        raise DataError(f"data.path must have a folder for each class, but {root} has {found}; make one per class")
    check_class_names(class_names, str(root))
    depth = 0 if split_folders["train"] == [root] else 1
    images, notes = _sort_files(root, files, depth, spec)
    splits: dict[str, ClassFiles] = {
        split: {name: [file for folder in folders for file in images.get(folder / name, [])] for name in class_names}
        for split, folders in split_folders.items()
    }
    _check_sizes(splits, root, depth)
    groups = None
    if spec.group not in (None, "none"):
        groups = name_groups([file for of in images.values() for file in of], root, depth, str(spec.group))
    train, validation = splits["train"], splits.get("validation", {})
    if "test" in splits:
        test = splits["test"]
    else:
        train, test = _split_off_test(train, groups, spec.test_share, spare=1 if validation else 2)
        notes.append(f"test: {spec.test_share:.0%} of the images of each class, the same for every data.version")
    return _Splits(train=train, validation=validation, test=test, groups=groups, notes=tuple(notes))


def _find_splits(root: Path) -> dict[str, list[Path]]:
    """Return the folders that hold the classes of each split; without split folders ``root`` is that of training."""
    folders = _subfolders(root)
    found: dict[str, list[Path]] = {}
    for folder in folders:
        if folder.name in _SPLITS:
            found.setdefault(_SPLITS[folder.name], []).append(folder)
    return found if "train" in found and (len(found) > 1 or len(folders) == 1) else {"train": [root]}


def _subfolders(folder: Path) -> list[Path]:
    return [Path(each.path) for each in list_folder(folder) if not each.name.startswith(".") and is_folder(each)]


def _sort_files(
    root: Path, files: Sequence[Path], depth: int, spec: DataSpec
) -> tuple[dict[Path, list[Path]], list[str]]:
    """Return the images by class folder, and notes; ``depth`` is the index of the class in a relative path."""
    images: dict[Path, list[Path]] = {}
    misplaced: list[Path] = []
    unread: Counter[str] = Counter()
    excluded: Counter[str] = Counter()
    nested = spec.group not in (None, "none")
    for file in files:
        relative = file.relative_to(root)
        parts = relative.parts
        if _is_hidden(relative):
            unread["hidden"] += 1
        elif file.suffix.lower() not in _SUFFIXES + _UNSUPPORTED:
            unread["of other kinds"] += 1
        elif len(parts) > depth + 1 and parts[depth] in spec.exclude:
            excluded[parts[depth]] += 1
        elif (
            len(parts) < depth + 2
            or (len(parts) > depth + 2 and not nested)
            or file.suffix.lower() in _UNSUPPORTED
            or (depth and parts[0] not in _SPLITS)
        ):
            misplaced.append(file)
        else:
            images.setdefault(root.joinpath(*parts[: depth + 1]), []).append(file)
    if misplaced:
        others = f" and {len(misplaced) - 1} more are not" if misplaced[1:] else " is not"
        raise DataError(
            f"every image must be a PNG, JPEG, BMP, PPM or WebP file in {'SPLIT/CLASS/' if depth else 'CLASS/'} of "
            f"{root}, but {misplaced[0]}{others}; convert, move or remove it (data.group reads folders below classes)"
        )
    notes = [f"left out by data.exclude: {name} (images: {excluded[name]:,})" for name in spec.exclude]
    if unread:
        notes.append("files not read: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(unread.items())))
    return images, notes


def _check_sizes(splits: Mapping[str, ClassFiles], root: Path, depth: int) -> None:
    missing = [split for split in ("validation", "test") if split not in splits]
    for split, classes in splits.items():
        if split == "validation":  # a class may have none
            continue
        uses = ["training", *missing] if split == "train" else [split]
        small = {name: len(files) for name, files in classes.items() if len(files) < len(uses)}
        if small:
            where, first = root / split if depth else root, next(iter(small))
            others = f", and {len(small) - 1} more have too few" if len(small) > 1 else ""
            raise DataError(
                f"a class must have at least {len(uses)} images in {where} for {' and '.join(uses)}, but '{first}' "
                f"has {small[first]}{others}; add images or {exclusion(list(small))}"
            )


def _split_off_test(
    classes: ClassFiles, groups: Mapping[Path, str] | None, share: float, spare: int
) -> tuple[ClassFiles, ClassFiles]:
    """Return training and test files; at least ``spare`` images of each class stay in training."""
    train, test = {}, {}
    for name, files in classes.items():
        count = min(max(floor(share * len(files)), 1), len(files) - spare)
        of_class = None
        if groups is not None:
            of_class, group_names = number_groups([groups[file] for file in files])
            if len(group_names) == 1:
                raise DataError(
                    f"a class must have at least 2 groups for training and test, but '{name}' has '{group_names[0]}' "
                    f"only; add images, provide test/, or {exclusion([name])}"
                )
        drawn = hold_out(np.arange(len(files)), of_class, count, numpy_rng(0, f"data/images/test/{name}"))
        train[name] = [files[index] for index in sorted(drawn.rest.tolist())]
        test[name] = [files[index] for index in sorted(drawn.held_out.tolist())]
    return train, test


def _automatic_side(sizes: Sequence[tuple[int, int]]) -> int:
    """Return the median shorter side, at most 64, rounded down to a multiple of 8, at least 16."""
    median = int(np.median([min(size) for size in sizes]))
    return max(min(median, _LARGEST) // _MULTIPLE * _MULTIPLE, _SMALLEST)


def _read_images(files: Sequence[Path], mode: str, side: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the images ``[N, C, side, side]`` and notes on what was done to some of them."""
    shape = (len(files), 3 if mode == "RGB" else 1, side, side)
    check_memory(math.prod(shape), f"{len(files):,} images of {side}x{side} pixels (data.image_size)")
    images = np.empty(shape, dtype=np.uint8)

    def decode(index: int, image: Image.Image) -> list[str]:
        changes = {
            "CMYK images made RGB": image.mode == "CMYK",
            "animated images, of which the first frame is used": _is_animated(image),
            "images of 16 bits per channel, of which the upper 8 are used": _has_16_bits(image),
        }
        upright = _turn_upright(image)
        changes |= {
            "grey images made RGB": mode == "RGB" and not _has_colour(image),
            "images with transparent parts put on black": image.has_transparency_data,
            "images turned upright by their EXIF orientation": upright is not image,
        }
        opaque = _put_on_black(_to_eight_bits(upright)).convert(mode)
        images[index] = np.atleast_3d(np.asarray(_centre_square(opaque, side))).transpose(2, 0, 1)
        return [change for change, applied in changes.items() if applied]

    counts = Counter(change for changes in map_images(files, decode) for change in changes)
    return images, [f"{change}: {count:,}" for change, count in sorted(counts.items())]


def _size_notes(headers: Sequence[Header], side: int) -> list[str]:
    sizes = Counter(size for size, _ in headers)
    if sizes.keys() == {(side, side)}:
        return []
    (width, height), count = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    found = f"{width}x{height}"
    if len(sizes) > 1:
        found = f"{len(sizes):,} sizes, {found} in {count:,} of {len(headers):,}"
    return [f"images of {found} (width x height) resized to {side}x{side}: shorter side, then the square in the middle"]


def _has_colour(image: Image.Image) -> bool:
    """Whether an image is stored in colour; a palette is colour unless all of its entries are grey."""
    if image.mode in ("P", "PA"):
        palette = np.asarray(image.getpalette(), dtype=np.int64).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in ("1", "L", "LA", "La", "F") and not image.mode.startswith("I")


def _is_animated(image: Image.Image) -> bool:
    return image.format in ("PNG", "WEBP") and bool(getattr(image, "is_animated", False))


def _has_16_bits(image: Image.Image) -> bool:
    """Whether the file of an image that is not loaded yet has 16 bits per channel."""
    if not isinstance(image, ImageFile) or image.format not in ("PNG", "PPM"):
        return False
    modes = [tile.args if isinstance(tile.args, tuple) else (tile.args,) for tile in image.tile]
    return any("16" in str(mode) or any(largest > 255 for largest in rest) for mode, *rest in modes)


def _turn_upright(image: Image.Image) -> Image.Image:
    """Return an image turned by its EXIF orientation, or the image itself if it is upright.

    ``ImageOps.exif_transpose`` also rewrites all other tags, and fails if one of them has an unexpected type.
    """
    image.load()  # a PNG may have its tags behind the pixels
    method = _TO_UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    return image if method is None else image.transpose(method)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return an image with 8 bits per channel: the upper 8 of 16 bits."""
    if image.mode == "F":
        raise ValueError("it has floating-point pixels")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))


def _put_on_black(image: Image.Image) -> Image.Image:
    """Return an image with its transparent parts black, the level that the nuisances take for background."""
    if not image.has_transparency_data:
        return image
    pixels = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, "black"), pixels).convert("RGB")


def _centre_square(image: Image.Image, side: int) -> Image.Image:
    """Return the middle of an image whose shorter side is resized to ``side`` pixels, bilinear with antialiasing."""
    shorter = min(image.size)
    width, height = (max(round(length * side / shorter), side) for length in image.size)
    if width * height > _MAX_PIXELS:
        raise ValueError(f"resized to {side} pixels on its shorter side, it would have {width}x{height}")
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return resized.crop((left, top, left + side, top + side))


IMAGE_FOLDER = _ImageFolder()
