"""A folder of the user's own images: CLASS/ alone, or train/CLASS/ with val/CLASS/, test/CLASS/ or both.

If the folder has train/, and val/ (or valid/, validation/) or test/ or no other folder, images lie in SPLIT/CLASS/ and
these splits are used; otherwise images lie in CLASS/. Without test/, ``test_share * n``, rounded down, of the n images
of each class become its test images: at least 1, and some are left for the other splits. This random choice depends on
the class's name, n and its groups alone. With a rule for groups, images may also lie in folders below CLASS/.

They are ordered by class name, then file name, and decoded as ``decoding`` describes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.holdout import hold_out
from gitdist.data.longtail import floor
from gitdist.data.path_groups import name_groups
from gitdist.data.sources.base import (
    DataSource,
    SourceImages,
    check_class_names,
    check_excluded,
    exclusion,
    number_groups,
    user_folder,
)
from gitdist.data.sources.decoding import decode_images
from gitdist.errors import DataError
from gitdist.input_file import expand_home, input_status, is_folder, list_folder
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec

_CONTENTS = "CLASS/, or train/CLASS/, val/CLASS/ and test/CLASS/"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".pnm", ".webp")
_UNSUPPORTED = (
    *(".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".tga", ".pfm", ".dcm"),
    *(".jfif", ".jpe", ".apng", ".dib"),  # they have a usual name
)
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}

ClassFiles = Mapping[str, Sequence[Path]]  # the files of each class, in the order of the labels


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
        images, notes = decode_images([*train, *test], spec.image_size)
        groups, group_names = number_groups([splits.groups[file] for file in [*train, *test]] if splits.groups else [])
        num_training = sum(map(len, splits.train.values()))
        return SourceImages(
            name=_root(spec).name,
            train_images=images[: len(train)],
            train_labels=train_labels,
            test_images=images[len(train) :],
            test_labels=test_labels,
            class_names=tuple(splits.train),
            notes=(*notes, *splits.notes),
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


def find_images(folder: Path) -> list[Path]:
    """Return the images in a folder and below it, by path; hidden files and files of other kinds are left out.

    Raises:
        DataError: a folder cannot be listed, there is no image, or one of a format that is not read.
    """
    visible = [file for file in _list_files(folder) if not _is_hidden(file.relative_to(folder))]
    unsupported = [file for file in visible if file.suffix.lower() in _UNSUPPORTED]
    if unsupported:
        raise DataError(f"an image must be a PNG, JPEG, BMP, PPM or WebP file, but {unsupported[0]} is not; convert it")
    images = [file for file in visible if file.suffix.lower() in _SUFFIXES]
    if not images:
        raise DataError(f"a folder of images must have PNG, JPEG, BMP, PPM or WebP files, but {folder} has none")
    return images


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


IMAGE_FOLDER = _ImageFolder()
