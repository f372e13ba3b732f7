"""Calls a data plugin, and checks the form of what it returns; ``sources/plugin.py`` describes it.

This module imports little: it runs in a child process, since a plugin's code may exit, block or crash. Arrays of images
are left in files, ``SPLIT.npy``, as the plugin has returned them.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gitdist.data import SPLITS
from gitdist.errors import DataError, GitdistError, SpecError, first_line
from gitdist.input_file import check_memory
from gitdist.plugins import describe_raised, load_attribute

_ENTRY_POINTS = "gitdist.data"

_TEXT_KINDS = "iuU"  # of dtypes: integers, text


@dataclass(frozen=True, kw_only=True)
class ReturnedSplit:
    """The images of one split, and what belongs to each."""

    labels: list[str]
    groups: list[str] | None
    paths: list[str] | None  # None = the images are in a file


@dataclass(frozen=True, kw_only=True)
class ReturnedImages:
    """The splits that a plugin has returned, in the order training, validation, test."""

    splits: Mapping[str, ReturnedSplit]
    class_names: list[str] | None


def call_plugin(target: str, path: Path | None, options: Mapping[str, Any], folder: Path) -> ReturnedImages:
    """Return what a plugin returns; its arrays are written into ``folder``.

    Raises:
        SpecError: it cannot be imported or called, raises, or returns something else.
        DataError: its arrays do not fit into the memory or the folder.
    """
    attribute = load_attribute(target, _ENTRY_POINTS, "data.target")
    if not callable(attribute):
        raise plugin_error(target, "must be a function", f"it is of type {type(attribute).__name__}")
    try:
        returned, arrays = _parse(attribute(path, **options), target)
    except GitdistError:
        raise
    except BaseException as error:
        raise plugin_error(target, "must return images", f"it raised {describe_raised(error)}") from error
    check_memory(sum(array.nbytes for array in arrays.values()), f"the images of data.target '{target}'")
    try:
        for split, array in arrays.items():
            np.save(folder / f"{split}.npy", array, allow_pickle=False)
    except OSError as error:
        raise DataError(
            f"the images of data.target '{target}' must fit into {folder.parent}, but cannot be written "
            f"({first_line(error)}); free space there, or set TMPDIR to another folder"
        ) from error
    return returned


def plugin_error(target: str, rule: str, found: str) -> SpecError:
    """Return the error for a plugin that breaks a rule."""
    return SpecError(f"data.target '{target}' {rule}, but {found}; fix it or data.options")


def _parse(value: Any, target: str) -> tuple[ReturnedImages, dict[str, np.ndarray]]:
    parts = _mapping(value, (*SPLITS, "classes"), target, "it")
    if "train" not in parts:
        raise plugin_error(target, "must return a mapping with the key train", "it has none")
    splits, arrays = {}, {}
    for name in SPLITS:
        if name in parts:
            splits[name], images = _parse_split(parts[name], target, name)
            if images is not None:
                arrays[name] = images
    if len(arrays) not in (0, len(splits)):
        raise plugin_error(target, "must return images for all splits or paths for all", "it returned both")
    if len({split.groups is None for split in splits.values()}) > 1:
        raise plugin_error(target, "must return groups for all splits or for none", "some are missing")
    class_names = _texts(parts["classes"], None, target, "classes") if "classes" in parts else None
    return ReturnedImages(splits=splits, class_names=class_names), arrays


def _parse_split(value: Any, target: str, name: str) -> tuple[ReturnedSplit, np.ndarray | None]:
    parts = _mapping(value, ("images", "paths", "labels", "groups"), target, name)
    if ("images" in parts) == ("paths" in parts) or "labels" not in parts:
        rule = f"must return labels and either images or paths in {name}"
        raise plugin_error(target, rule, f"it returned {', '.join(parts) or 'nothing'}")
    images, paths = None, None
    if "images" in parts:
        images = np.asarray(parts["images"])
        if images.dtype.hasobject or not images.ndim:
            raise plugin_error(target, f"must return an array as {name}.images", f"it is of {images.dtype}")
        count = len(images)
    else:
        paths = [os.fspath(path) for path in parts["paths"]]
        if not paths or not all(isinstance(path, str) for path in paths):
            found = "some are not" if paths else "there are none"
            raise plugin_error(target, f"must return paths as text in {name}", found)
        count = len(paths)
    labels = _texts(parts["labels"], count, target, f"{name}.labels")
    groups = _texts(parts["groups"], count, target, f"{name}.groups") if "groups" in parts else None
    return ReturnedSplit(labels=labels, groups=groups, paths=paths), images


def _mapping(value: Any, keys: Sequence[str], target: str, what: str) -> dict[str, Any]:
    """Return the parts of a mapping that are not None."""
    rule = f"must return a mapping with {', '.join(keys)}"
    if not isinstance(value, Mapping):
        raise plugin_error(target, rule, f"{what} is of type {type(value).__name__}")
    for key in value:
        if key not in keys:
            raise plugin_error(target, rule, f"{what} has the key {key!r} too")
    return {key: part for key, part in value.items() if part is not None}


def _texts(values: Any, count: int | None, target: str, what: str) -> list[str]:
    array = np.asarray(values)
    if array.dtype.hasobject:  # a column of text of pandas
        array = np.asarray(array.tolist())
    if array.dtype.kind not in _TEXT_KINDS or array.ndim != 1 or (count is not None and len(array) != count):
        rule = f"must return integers or text [{'C' if count is None else count}] as {what}"
        raise plugin_error(target, rule, f"it returned {array.dtype} {list(array.shape)}")
    return [str(value) for value in array.tolist()]
