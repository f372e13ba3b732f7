"""A folder of the user's own images: CLASS/ alone, or train/CLASS/ with val/CLASS/, test/CLASS/ or both.

If the folder has train/, and val/ (or valid/, validation/) or test/ or no other folder, images lie in SPLIT/CLASS/ and
these splits are used; otherwise images lie in CLASS/. With a rule for groups, images may also lie in folders below
CLASS/. They are ordered by class name, then file name.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gitdist.data import SPLITS
from gitdist.data.path_groups import name_groups
from gitdist.data.sources.base import DataSource, SourceImages, check_class_names, check_excluded, user_folder
from gitdist.data.sources.own_images import SPLIT_NAMES, OwnImages, excluded_notes
from gitdist.errors import DataError
from gitdist.input_file import expand_home, input_status, is_folder, list_folder
from gitdist.spec import DataSpec

_CONTENTS = "CLASS/, or train/CLASS/, val/CLASS/ and test/CLASS/"
_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".pnm", ".webp")
_UNSUPPORTED = (
    *(".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".tga", ".pfm", ".dcm"),
    *(".jfif", ".jpe", ".apng", ".dib"),  # they have a usual name
)


@dataclass(frozen=True, kw_only=True)
class _FolderImages:
    files: Sequence[Path]
    own: OwnImages  # one row per file


class _ImageFolder(DataSource):
    def find(self, spec: DataSpec) -> Sequence[Path]:
        return _list_files(user_folder(spec.path, _CONTENTS))

    def location(self) -> str:
        return f"any folder with {_CONTENTS}, of PNG, JPEG, ... named by data.path"

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        folder = _read_folder(files, spec)
        return folder.own.read(folder.files, spec, _root(spec).name)

    read_selected = read  # leaves the excluded classes out before it decodes

    def row_names(self, files: Sequence[Path], spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
        folder, root = _read_folder(files, spec), _root(spec)
        return folder.own.row_names([str(file.relative_to(root)) for file in folder.files], spec)


@dataclass(frozen=True, kw_only=True)
class FolderContents:
    """The images of a folder: ``counts`` by class in the folders of training, and the splits that are there."""

    files: Sequence[Path]
    counts: Mapping[str, int]
    given: Sequence[str]


def list_classes(folder: Path) -> FolderContents:
    """Return the images in a folder with a folder for each class, without decoding any.

    Raises:
        DataError: as for a study with this folder.
    """
    spec = DataSpec(source="images", path=str(folder))
    read = _read_folder(IMAGE_FOLDER.find(spec), spec)
    sizes = np.bincount(read.own.labels[read.own.splits == 0], minlength=len(read.own.class_names))
    counts = dict(zip(read.own.class_names, sizes.tolist(), strict=True))
    return FolderContents(files=read.files, counts=counts, given=tuple(read.own.given))


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


def _read_folder(files: Sequence[Path], spec: DataSpec) -> _FolderImages:
    """Return the images split by split, class by class and by name."""
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
    rows = [
        (file, label, split)
        for split, name in enumerate(SPLITS)
        for label, class_name in enumerate(class_names)
        for folder in split_folders.get(name, [])
        for file in images.get(folder / class_name, [])
    ]
    groups = None
    if spec.group not in (None, "none"):
        groups = name_groups([file for file, _, _ in rows], root, depth, str(spec.group))
    own = OwnImages(
        class_names=tuple(class_names),
        labels=np.array([label for _, label, _ in rows], np.int64),
        splits=np.array([split for _, _, split in rows], np.int64),
        groups=groups,
        given={name: str(root / name if depth else root) for name in split_folders},
        notes=tuple(notes),
    )
    return _FolderImages(files=[file for file, _, _ in rows], own=own)


def _find_splits(root: Path) -> dict[str, list[Path]]:
    """Return the folders that hold the classes of each split; without split folders ``root`` is that of training."""
    folders = _subfolders(root)
    found: dict[str, list[Path]] = {}
    for folder in folders:
        if folder.name in SPLIT_NAMES:
            found.setdefault(SPLIT_NAMES[folder.name], []).append(folder)
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
            or (depth and parts[0] not in SPLIT_NAMES)
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
    notes = excluded_notes(spec.exclude, excluded)
    if unread:
        notes.append("files not read: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(unread.items())))
    return images, notes


IMAGE_FOLDER = _ImageFolder()
