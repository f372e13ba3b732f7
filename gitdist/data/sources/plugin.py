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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.child_process import ChildEndedError, ChildProcess
from gitdist.data import SPLITS, data_plugin
from gitdist.data.data_plugin import ReturnedImages, ReturnedSplit, call_plugin, plugin_error
from gitdist.data.sources.base import DataSource, SourceImages, check_class_names
from gitdist.data.sources.listing import Listing, number_labels
from gitdist.data.sources.npz import channels_first, check_images
from gitdist.data.sources.own_images import OwnImages
from gitdist.errors import DataError
from gitdist.input_file import expand_home
from gitdist.spec import DataSpec


class _DataPlugin(DataSource):
    def find(self, spec: DataSpec) -> Sequence[Path]:
        return ()

    def location(self) -> str:
        return "any images that the function data.target of another package returns"

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        with _called(spec) as (returned, folder):
            if _has_paths(returned):
                return _listing(returned, spec).source_images(spec)
            return _source_images(returned, folder, spec)

    read_selected = read  # leaves the excluded classes out

    def row_names(self, files: Sequence[Path], spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        with _called(spec) as (returned, _):
            return _listing(returned, spec).row_names(spec) if _has_paths(returned) else None


@contextmanager
def _called(spec: DataSpec) -> Iterator[tuple[ReturnedImages, Path]]:
    """Yield what the plugin returns, and the folder of its arrays."""
    target, path = str(spec.target), expand_home(spec.path) if spec.path else None
    with tempfile.TemporaryDirectory(prefix="gitdist-") as folder:
        try:
            with ChildProcess(data_plugin.__name__) as child:
                task = f"data.target '{target}' must return images"
                returned = child.call(task, call_plugin, target, path, spec.options, Path(folder))
        except (ChildEndedError, OSError) as error:
            raise plugin_error(target, "must return images", str(error)) from None
        if returned.class_names is not None:
            check_class_names(returned.class_names, f"data.target '{target}'")
        yield returned, Path(folder)


def _has_paths(returned: ReturnedImages) -> bool:
    return returned.splits["train"].paths is not None


def _listing(returned: ReturnedImages, spec: DataSpec) -> Listing:
    rows = _Rows(returned)
    paths = [path for split in rows.splits for path in split.paths or ()]
    relative = next((row for row, path in enumerate(paths) if not os.path.isabs(path)), None)
    if relative is not None and not spec.path:
        raise DataError(
            f"{rows.where(relative)}: a path must be absolute, or data.path must be set, but it is "
            f"'{paths[relative]}' without data.path; set it"
        )
    return Listing(
        name=str(spec.target),
        folder=expand_home(spec.path or "/"),
        paths=paths,
        labels=rows.labels,
        splits=rows.split_numbers,
        groups=rows.groups,
        class_names=returned.class_names,
        given=rows.given,
        where=rows.where,
    )


def _source_images(returned: ReturnedImages, folder: Path, spec: DataSpec) -> SourceImages:
    rows = _Rows(returned)
    arrays = [np.load(folder / f"{split}.npy", mmap_mode="r") for split in returned.splits]
    for array, where in zip(arrays, rows.given.values(), strict=True):
        check_images(array, where)
        if array.shape[1:] != arrays[0].shape[1:]:
            found = " and ".join(map(str, sorted({array.shape[1:] for array in arrays})))
            raise plugin_error(str(spec.target), "must return images of one shape", f"they have {found}")
    labels, class_names = number_labels(rows.labels, returned.class_names, spec.exclude, rows.where)
    own, kept = OwnImages(
        class_names=class_names,
        labels=labels,
        splits=rows.split_numbers,
        groups=None if spec.group == "none" else rows.groups,
        given=rows.given,
    ).without_classes(spec.exclude)
    official = own.official_rows(spec)
    train, test = (channels_first(_take(arrays, kept[of_split])) for of_split in (official.train, official.test))
    return own.source_images(official, str(spec.target), train, test)


def _take(arrays: Sequence[NDArray[np.uint8]], rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return rows of the arrays, which are counted through; those of an earlier array come first."""
    taken, start = [], 0
    for array in arrays:
        taken.append(array[rows[(rows >= start) & (rows < start + len(array))] - start])
        start += len(array)
    return np.concatenate(taken)


class _Rows:
    """The images of all splits, one after the other."""

    def __init__(self, returned: ReturnedImages) -> None:
        self.splits: list[ReturnedSplit] = list(returned.splits.values())
        self.labels = [label for split in self.splits for label in split.labels]
        self.given = {name: f"{name} of data.target" for name in returned.splits}
        counts = [len(split.labels) for split in self.splits]
        self.split_numbers = np.repeat([SPLITS.index(name) for name in returned.splits], counts)
        self.groups: list[str] | None = None
        if self.splits[0].groups is not None:
            self.groups = [group for split in self.splits for group in split.groups or ()]

    def where(self, row: int) -> str:
        for name, split in zip(self.given, self.splits, strict=True):
            if row < len(split.labels):
                return f"image {row} of {name} in data.target"
            row -= len(split.labels)
        raise IndexError(row)


DATA_PLUGIN = _DataPlugin()
