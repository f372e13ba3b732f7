"""Data of other packages: ``data: {source: plugin, target: "package.module:attribute", options: {...}}``.

    attribute(path, **options) -> {
        "train": {"images": uint8 [N, H, W, C] or [N, H, W], "labels": [N], "groups": [N], optional},
        "validation": the same, optional,
        "test": the same, optional,
        "classes": names, optional,
    }

``path`` is ``data.path`` as a ``pathlib.Path``, or None. Labels are integers counted from 0, or names; groups are
integers or text. Instead of ``images``, all splits may have ``paths`` of image files, absolute or relative to
``data.path``. What is missing is split off training as for a folder of images.

A plugin's code may exit, block or crash. So it runs in a child process, which leaves its arrays in files.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gitdist.child_process import ChildEndedError, ChildProcess
from gitdist.data.sources.base import DataSource, SourceImages, check_class_names
from gitdist.data.sources.listing import Listing, number_labels
from gitdist.data.sources.npz import channels_first
from gitdist.data.sources.own_images import SPLITS, OwnImages
from gitdist.errors import DataError, GitdistError, SpecError, first_line
from gitdist.input_file import check_memory, expand_home
from gitdist.plugins import describe_raised, load_attribute
from gitdist.spec import DataSpec, unknown_name

_ENTRY_POINTS = "gitdist.data"
_TEXT_KINDS = "iuU"  # of dtypes: integers, text


@dataclass(frozen=True, kw_only=True)
class _ReturnedSplit:
    labels: list[str]
    groups: list[str] | None
    paths: list[str] | None  # None = the images are in a file


@dataclass(frozen=True, kw_only=True)
class _Returned:
    """What a plugin has returned, in the order of SPLITS; arrays are in files, SPLIT.npy, ``[N, C, H, W]``."""

    splits: Mapping[str, _ReturnedSplit]
    class_names: list[str] | None

    @property
    def labels(self) -> list[str]:
        return [label for split in self.splits.values() for label in split.labels]

    @property
    def groups(self) -> list[str] | None:
        parts = [split.groups for split in self.splits.values()]
        return None if None in parts else [group for part in parts for group in part or ()]

    @property
    def paths(self) -> list[str] | None:
        parts = [split.paths for split in self.splits.values()]
        return None if None in parts else [path for part in parts for path in part or ()]

    @property
    def split_of_row(self) -> NDArray[np.int64]:
        numbers = [SPLITS.index(name) for name in self.splits]
        return np.repeat(numbers, [len(split.labels) for split in self.splits.values()])

    def where(self, row: int) -> str:
        for name, split in self.splits.items():
            if row < len(split.labels):
                return f"image {row} of {name} in data.target"
            row -= len(split.labels)
        raise IndexError(row)


class _DataPlugin(DataSource):
    def find(self, spec: DataSpec) -> Sequence[Path]:
        return ()

    def location(self) -> str:
        return "any images that the function data.target of another package returns"

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        with tempfile.TemporaryDirectory(prefix="gitdist-") as folder:
            returned = _call(spec, Path(folder))
            if returned.paths is not None:
                return _listing(returned, returned.paths, spec).source_images(spec)
            arrays = [np.load(Path(folder) / f"{split}.npy", mmap_mode="r") for split in returned.splits]
            return _source_images(returned, arrays, spec)

    read_selected = read  # leaves the excluded classes out before it decodes

    def row_names(self, files: Sequence[Path], spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        with tempfile.TemporaryDirectory(prefix="gitdist-") as folder:
            returned = _call(spec, Path(folder))
        return None if returned.paths is None else _listing(returned, returned.paths, spec).row_names(spec)


def _call(spec: DataSpec, folder: Path) -> _Returned:
    target, path = str(spec.target), expand_home(spec.path) if spec.path else None
    rule = "must return images"
    try:
        with ChildProcess(__name__) as child:
            task = f"data.target '{target}' {rule}"
            returned: _Returned = child.call(task, _call_here, target, path, spec.options, folder)
    except (ChildEndedError, OSError) as error:
        raise _error(target, rule, str(error)) from None
    return returned


def _listing(returned: _Returned, paths: Sequence[str], spec: DataSpec) -> Listing:
    relative = next((row for row, path in enumerate(paths) if not os.path.isabs(path)), None)
    if relative is not None and not spec.path:
        raise DataError(
            f"{returned.where(relative)}: a path must be absolute, or data.path must be set, but it is "
            f"'{paths[relative]}' without data.path; set it"
        )
    return Listing(
        name=str(spec.target),
        folder=expand_home(spec.path or "/"),
        paths=paths,
        labels=returned.labels,
        splits=returned.split_of_row,
        groups=returned.groups,
        class_names=returned.class_names,
        given=_given(returned),
        where=returned.where,
    )


def _source_images(returned: _Returned, arrays: Sequence[NDArray[np.uint8]], spec: DataSpec) -> SourceImages:
    labels, class_names = number_labels(returned.labels, returned.class_names, spec.exclude, returned.where)
    own, rows = OwnImages(
        class_names=class_names,
        labels=labels,
        splits=returned.split_of_row,
        groups=None if spec.group == "none" else returned.groups,
        given=_given(returned),
    ).without_classes(spec.exclude)
    official = own.official_rows(spec)
    train, test = (_take(arrays, rows[of_split]) for of_split in (official.train, official.test))
    return own.source_images(official, str(spec.target), train, test)


def _take(arrays: Sequence[NDArray[np.uint8]], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return rows of the arrays, which are counted through; rows of one array are in the order of ``rows``."""
    taken, start = [], 0
    for array in arrays:
        taken.append(array[rows[(rows >= start) & (rows < start + len(array))] - start])
        start += len(array)
    return np.concatenate(taken)


def _given(returned: _Returned) -> dict[str, str]:
    return {split: f"{split} of data.target" for split in returned.splits}


def _error(target: str, rule: str, found: str) -> SpecError:
    return SpecError(f"data.target '{target}' {rule}, but {found}; fix it or data.options")


# These run in the child process.


def _call_here(target: str, path: Path | None, options: Mapping[str, Any], folder: Path) -> _Returned:
    attribute = load_attribute(target, _ENTRY_POINTS, "data.target")
    if not callable(attribute):
        raise _error(target, "must be a function", f"it is of type {type(attribute).__name__}")
    try:
        returned, arrays = _parse(attribute(path, **options), target)
    except GitdistError:
        raise
    except BaseException as error:
        raise _error(target, "must return images", f"it raised {describe_raised(error)}") from error
    check_memory(sum(array.nbytes for array in arrays.values()), f"the images of data.target '{target}'")
    try:
        for split, array in arrays.items():
            np.save(folder / f"{split}.npy", array)
    except OSError as error:
        raise DataError(
            f"the images of data.target '{target}' must fit into {folder.parent}, but cannot be written "
            f"({first_line(error)}); free space there, or set TMPDIR to another folder"
        ) from error
    return returned


def _parse(value: Any, target: str) -> tuple[_Returned, dict[str, NDArray[np.uint8]]]:
    parts = _mapping(value, (*SPLITS, "classes"), target, "it")
    if "train" not in parts:
        raise _error(target, "must return a mapping with the key train", "it has none")
    splits, arrays = {}, {}
    for name in SPLITS:
        if name in parts:
            splits[name], images = _parse_split(parts[name], target, name)
            if images is not None:
                arrays[name] = images
    if len({split.groups is None for split in splits.values()}) > 1:
        raise _error(target, "must return groups for all splits or for none", "some are missing")
    if len(arrays) not in (0, len(splits)):
        raise _error(target, "must return images or paths for all splits", "it returned both")
    shapes = {array.shape[1:] for array in arrays.values()}
    if len(shapes) > 1:
        raise _error(target, "must return images of one shape [C, H, W]", f"it returned {sorted(shapes)}")
    class_names = _texts(parts["classes"], None, target, "classes") if "classes" in parts else None
    if class_names is not None:
        check_class_names(class_names, f"classes of data.target '{target}'")
    return _Returned(splits=splits, class_names=class_names), arrays


def _parse_split(value: Any, target: str, name: str) -> tuple[_ReturnedSplit, NDArray[np.uint8] | None]:
    parts = _mapping(value, ("images", "paths", "labels", "groups"), target, name)
    if ("images" in parts) == ("paths" in parts) or "labels" not in parts:
        rule = f"must return labels and either images or paths in {name}"
        raise _error(target, rule, f"it returned {', '.join(parts) or 'nothing'}")
    images: NDArray[np.uint8] | None = None
    paths: list[str] | None = None
    if "images" in parts:
        images = channels_first(np.asarray(parts["images"]), f"{name} of data.target '{target}'")
    else:
        paths = [os.fspath(path) for path in parts["paths"]]
        if not paths or not all(isinstance(path, str) for path in paths):
            raise _error(
                target, f"must return paths as text in {name}", "there are none" if not paths else "some are not"
            )
    count = len(paths) if images is None else len(images)
    labels = _texts(parts["labels"], count, target, f"{name}.labels")
    groups = _texts(parts["groups"], count, target, f"{name}.groups") if parts.get("groups") is not None else None
    return _ReturnedSplit(labels=labels, groups=groups, paths=paths), images


def _mapping(value: Any, keys: Sequence[str], target: str, what: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _error(
            target, f"must return a mapping with {', '.join(keys)}", f"{what} is of type {type(value).__name__}"
        )
    for key in value:
        if key not in keys:
            raise _error(target, f"must return only known keys in {what}", unknown_name("key", str(key), list(keys)))
    return {key: part for key, part in value.items() if part is not None}


def _texts(values: Any, count: int | None, target: str, what: str) -> list[str]:
    array = np.asarray(values)
    if array.dtype.kind not in _TEXT_KINDS or array.ndim != 1 or (count is not None and len(array) != count):
        rule = f"must return integers or text [{'C' if count is None else count}] as {what}"
        raise _error(target, rule, f"it returned {array.dtype} {list(array.shape)}")
    return [str(value) for value in array.tolist()]


DATA_PLUGIN = _DataPlugin()
