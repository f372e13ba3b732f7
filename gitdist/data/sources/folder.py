"""A folder of images by class: which file is an image of which class and split, and what is none."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitdist.data.sources.base import check_excluded
from gitdist.errors import DataError
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".pnm", ".webp")
_FOREIGN = (".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".tga")
_SPLITS = ("train", "test")
_LEAST = {"all": 3, "train": 2, "test": 1}  # training, validation and test have one each

Images = Mapping[str, Sequence[Path]]  # class name: its files in order


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The files of both splits by class, class names sorted, and notes on the files that are left out."""

    train: Images
    test: Images
    notes: tuple[str, ...]


def all_files(root: Path) -> list[Path]:
    """Return every file below ``root``, sorted by its path."""
    return sorted(Path(place) / name for place, _, names in os.walk(root, followlinks=True) for name in names)


def read_folder(root: Path, files: Sequence[Path], spec: DataSpec) -> Folder:
    """Sort files into classes and splits.

    Where ``root`` has both train/ and test/, images lie in train/CLASS/ and test/CLASS/. Else they lie in CLASS/, and
    of the n images of a class ``test_share * n``, rounded down, at least 1 and at most n - 2, are its test images:
    a draw that depends on the class's name and n alone.

    Args:
        root: the folder.
        files: every file below it, in order.
        spec: classes to leave out and the test share.

    Raises:
        DataError: an image lies in no class or is of a format that is not read, or a class has too few.
    """
    is_split = all((root / split).is_dir() for split in _SPLITS)
    tops = [root / split for split in _SPLITS] if is_split else [root]
    names = sorted({entry.name for top in tops for entry in top.iterdir() if _is_class(entry)})
    check_excluded(spec.exclude, names)
    kept = [name for name in names if name not in spec.exclude]
    if not kept:
        found = "none but those of data.exclude" if names else "none"
        raise DataError(f"data.path must have a folder for each class, but {root} has {found}; make one a class")
    images, notes = _sort(root, files, 1 if is_split else 0, spec.exclude)
    by_split = {top.name if is_split else "all": {name: images.get(top / name, []) for name in kept} for top in tops}
    for split, classes in by_split.items():
        _check_sizes(classes, root, split)
    if is_split:
        return Folder(train=by_split["train"], test=by_split["test"], notes=tuple(notes))
    train, test = _draw_test(by_split["all"], spec.test_share)
    share = f"test: {spec.test_share:.0%} of the images of each class, drawn once for all"
    return Folder(train=train, test=test, notes=(*notes, share))


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _sort(
    root: Path, files: Sequence[Path], depth: int, exclude: Sequence[str]
) -> tuple[dict[Path, list[Path]], list[str]]:
    """Return the images by the class folder they lie in, and notes; ``depth`` is the class's place in the path."""
    images: dict[Path, list[Path]] = {}
    strange: list[Path] = []
    ignored: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    for file in files:
        parts = file.relative_to(root).parts
        if any(part.startswith(".") for part in parts):
            ignored["hidden"] += 1
        elif file.suffix.lower() not in _SUFFIXES + _FOREIGN:
            ignored["of other kinds"] += 1
        elif len(parts) > depth + 1 and parts[depth] in exclude:
            left_out[parts[depth]] += 1
        elif len(parts) != depth + 2 or file.suffix.lower() in _FOREIGN or (depth and parts[0] not in _SPLITS):
            strange.append(file)
        else:
            images.setdefault(file.parent, []).append(file)
    _refuse(strange, "train/CLASS/ or test/CLASS/" if depth else "CLASS/", root)
    notes = [f"left out by data.exclude: {name} (images: {left_out[name]:,})" for name in exclude]
    if ignored:
        notes.append("files not read: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(ignored.items())))
    return images, notes


def _refuse(strange: Sequence[Path], where: str, root: Path) -> None:
    if strange:
        others = f" and {len(strange) - 1} more are not" if strange[1:] else " is not"
        raise DataError(
            f"every image must be a PNG, JPEG, BMP, PPM or WebP file in {where} of {root}, but {strange[0]}{others}; "
            "convert, move or remove what is not"
        )


def _check_sizes(classes: Images, root: Path, split: str) -> None:
    least = _LEAST[split]
    poor = [name for name, files in classes.items() if len(files) < least]
    if poor:
        where, use = (root, "training, validation and test") if split == "all" else (root / split, f"{split}/")
        use = "training and validation" if split == "train" else use
        others = f", and {len(poor) - 1} more have too few" if poor[1:] else ""
        raise DataError(
            f"a class must have at least {least} images in {where} for {use}, but '{poor[0]}' has "
            f"{len(classes[poor[0]])}{others}; add images or set data.exclude: [{', '.join(poor)}]"
        )


def _draw_test(classes: Images, share: float) -> tuple[Images, Images]:
    train, test = {}, {}
    for name, files in classes.items():
        num_test = min(max(int(share * len(files)), 1), len(files) - 2)
        chosen = set(numpy_rng(0, f"data/images/test/{name}").permutation(len(files))[:num_test].tolist())
        test[name] = [file for index, file in enumerate(files) if index in chosen]
        train[name] = [file for index, file in enumerate(files) if index not in chosen]
    return train, test
