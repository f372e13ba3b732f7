"""A folder of images by class: which file is an image of which class, split and group, and what is none."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gitdist.data.holdout import hold_out
from gitdist.data.longtail import floor
from gitdist.data.sources.base import check_excluded, group_by_name
from gitdist.errors import DataError
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".pnm", ".webp")
_FOREIGN = (".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jp2", ".tga")
_SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}

Images = Mapping[str, Sequence[Path]]  # class name: its files in order


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The files of each split by class, class names sorted, and notes on the files that are left out.

    ``validation`` has no file where the folder has no such split. ``groups`` is the name of each file's group, None
    where each image is a group by itself.
    """

    train: Images
    validation: Images
    test: Images
    groups: Mapping[Path, str] | None
    notes: tuple[str, ...]


def all_files(root: Path) -> list[Path]:
    """Return every file below ``root``, sorted by its path."""
    return sorted(Path(place) / name for place, _, names in os.walk(root, followlinks=True) for name in names)


def read_folder(root: Path, files: Sequence[Path], spec: DataSpec) -> Folder:
    """Sort files into classes, splits and groups.

    If ``root`` has train/, and val/ (or valid/, validation/) or test/ or no other folder, images lie in SPLIT/CLASS/
    and these splits are kept; otherwise they lie in CLASS/. If there is no test/, ``test_share * n``, rounded down, of
    the n images of each class are its test images, at least 1, and some are left for the other splits: a random choice
    that depends on the class's name, n and groups alone. With a rule for groups, images may lie in folders below CLASS/
    too.

    Args:
        root: the folder.
        files: every file below it, in order.
        spec: classes to leave out, the rule for groups and the test share.

    Raises:
        DataError: an image lies in no class, belongs to no group or is of a format that is not read, or a class has too
            few images.
    """
    tops = _find_splits(root)
    names = sorted(
        {entry.name for folders in tops.values() for top in folders for entry in top.iterdir() if _is_class(entry)}
    )
    check_excluded(spec.exclude, names)
    kept = [name for name in names if name not in spec.exclude]
    if not kept:
        found = "none but those of data.exclude" if names else "none"
        raise DataError(f"data.path must have a folder for each class, but {root} has {found}; make one per class")
    depth = 0 if tops["train"] == [root] else 1
    images, notes = _sort(root, files, depth, spec)
    by_split: dict[str, Images] = {
        split: {name: [file for top in folders for file in images.get(top / name, [])] for name in kept}
        for split, folders in tops.items()
    }
    _check_sizes(by_split, root, depth)
    groups = _name_groups(images, root, depth, spec.group)
    train, validation = by_split["train"], by_split.get("validation", {})
    if "test" in by_split:
        test = by_split["test"]
    else:
        train, test = _draw_test(train, groups, spec.test_share, spare=1 if validation else 2)
        notes.append(f"test: {spec.test_share:.0%} of the images of each class, the same for every data.version")
    return Folder(train=train, validation=validation, test=test, groups=groups, notes=tuple(notes))


def _find_splits(root: Path) -> dict[str, list[Path]]:
    """Return the folders that hold the classes of each split; without split folders ``root`` is that of training."""
    folders = [entry for entry in sorted(root.iterdir()) if _is_class(entry)]
    found: dict[str, list[Path]] = {}
    for folder in folders:
        if folder.name in _SPLITS:
            found.setdefault(_SPLITS[folder.name], []).append(folder)
    return found if "train" in found and (len(found) > 1 or len(folders) == 1) else {"train": [root]}


def _is_class(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _sort(root: Path, files: Sequence[Path], depth: int, spec: DataSpec) -> tuple[dict[Path, list[Path]], list[str]]:
    """Return the images by the class folder they lie in, and notes; ``depth`` is the class's position in the path."""
    images: dict[Path, list[Path]] = {}
    strange: list[Path] = []
    ignored: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    nested = spec.group not in (None, "none")
    for file in files:
        parts = file.relative_to(root).parts
        if any(part.startswith(".") for part in parts):
            ignored["hidden"] += 1
        elif file.suffix.lower() not in _SUFFIXES + _FOREIGN:
            ignored["of other kinds"] += 1
        elif len(parts) > depth + 1 and parts[depth] in spec.exclude:
            left_out[parts[depth]] += 1
        elif (
            len(parts) < depth + 2
            or (len(parts) > depth + 2 and not nested)
            or file.suffix.lower() in _FOREIGN
            or (depth and parts[0] not in _SPLITS)
        ):
            strange.append(file)
        else:
            images.setdefault(root.joinpath(*parts[: depth + 1]), []).append(file)
    _refuse(strange, "SPLIT/CLASS/" if depth else "CLASS/", root)
    notes = [f"left out by data.exclude: {name} (images: {left_out[name]:,})" for name in spec.exclude]
    if ignored:
        notes.append("files not read: " + ", ".join(f"{count:,} {kind}" for kind, count in sorted(ignored.items())))
    return images, notes


def _refuse(strange: Sequence[Path], where: str, root: Path) -> None:
    if strange:
        others = f" and {len(strange) - 1} more are not" if strange[1:] else " is not"
        raise DataError(
            f"every image must be a PNG, JPEG, BMP, PPM or WebP file in {where} of {root}, but {strange[0]}{others}; "
            "convert, move or remove what is not (data.group reads folders below the classes)"
        )


def _name_groups(
    images: Mapping[Path, Sequence[Path]], root: Path, depth: int, rule: str | None
) -> dict[Path, str] | None:
    if rule in (None, "none"):
        return None
    return {file: _group_of(file, root, depth, str(rule)) for files in images.values() for file in files}


def _group_of(file: Path, root: Path, depth: int, rule: str) -> str:
    """Return the name of a file's group: the folder between class and file, or what the regular expression finds."""
    parts = file.relative_to(root).parts
    if rule == "folder":
        if len(parts) > depth + 2:
            return parts[depth + 1]
        raise DataError(
            f"with data.group: folder every image must lie in a folder below its class, CLASS/GROUP/, but {file} "
            "does not; move it into one, or name groups by a regular expression"
        )
    found = re.search(rule, "/".join(parts))
    if found is None:
        raise DataError(
            f"data.group must match the path of every image below {root}, but {rule!r} does not match "
            f"{'/'.join(parts)}; correct the expression"
        )
    return next((part for part in found.groups() if part is not None), found[0])


def _check_sizes(by_split: Mapping[str, Images], root: Path, depth: int) -> None:
    missing = [split for split in ("validation", "test") if split not in by_split]
    for split, classes in by_split.items():
        if split == "validation":  # a class may have none
            continue
        uses = ["training", *missing] if split == "train" else [split]
        poor = [name for name, files in classes.items() if len(files) < len(uses)]
        if poor:
            where = root / split if depth else root
            others = f", and {len(poor) - 1} more have too few" if poor[1:] else ""
            raise DataError(
                f"a class must have at least {len(uses)} images in {where} for {' and '.join(uses)}, but '{poor[0]}' "
                f"has {len(classes[poor[0]])}{others}; add images or set data.exclude: [{', '.join(poor)}]"
            )


def _draw_test(classes: Images, groups: Mapping[Path, str] | None, share: float, spare: int) -> tuple[Images, Images]:
    """Return training and test images; ``spare`` images of each class at least stay out of test."""
    train, test = {}, {}
    for name, files in classes.items():
        count = min(max(floor(share * len(files)), 1), len(files) - spare)
        numbers = None if groups is None else group_by_name([groups[file] for file in files]).groups
        if numbers is not None and not numbers.any():
            raise DataError(
                f"a class must have at least 2 groups for training and test, but all images of '{name}' are of group "
                f"'{groups[files[0]] if groups else name}'; add images, provide test/, or set data.exclude: [{name}]"
            )
        drawn = hold_out(np.arange(len(files)), numbers, count, numpy_rng(0, f"data/images/test/{name}"))
        test[name] = [files[index] for index in sorted(drawn.held_out.tolist())]
        train[name] = [files[index] for index in sorted(drawn.rest.tolist())]
    return train, test
