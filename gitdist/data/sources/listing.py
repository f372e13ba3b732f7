"""Images that text files or plugins list: a path, a label, a split and perhaps a group for each.

Labels are integers, counted from 0, or names. Paths are relative to ``data.path`` and do not lead out of it; links are
followed. An image is listed once.
"""

import difflib
import os
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data.path_groups import match_groups
from gitdist.data.sources.base import DataSource, SourceImages, check_class_names, user_folder
from gitdist.data.sources.own_images import OwnImages
from gitdist.errors import DataError
from gitdist.input_file import read_input
from gitdist.spec import DataSpec, unknown_name

_INTEGER = re.compile(r"-?[0-9]+")
_LONGEST_INTEGER = 18  # digits
_LONGEST = 100  # characters of a label in a message
_NAMED = 20  # classes that a message names


@dataclass(frozen=True, kw_only=True, eq=False)
class Listing:
    """Images in the order in which they are listed."""

    name: str  # of the data set
    folder: Path  # that the paths are relative to
    paths: Sequence[str]  # [N]
    labels: Sequence[str]  # [N]
    splits: NDArray[np.int64]  # [N], indices into SPLITS
    groups: Sequence[str] | None = None  # [N]
    class_names: Sequence[str] | None = None  # None = from the labels
    given: Mapping[str, str]  # see ``OwnImages``
    where: Callable[[int], str]  # names an image, by its row, in messages

    def own_images(self, spec: DataSpec) -> tuple[OwnImages, NDArray[np.int64]]:
        """Return the images without the classes of ``data.exclude``, and their rows.

        Raises:
            DataError: an image is listed twice, a label is not valid, or ``data.group`` does not fit a path.
        """
        self._check_no_repeats()
        labels, class_names = number_labels(self.labels, self.class_names, spec.exclude, self.where)
        own = OwnImages(
            class_names=class_names,
            labels=labels,
            splits=self.splits,
            groups=self._name_groups(spec.group),
            given=self.given,
        )
        return own.without_classes(spec.exclude)

    def source_images(self, spec: DataSpec) -> SourceImages:
        """Read the images.

        Raises:
            DataError: as ``own_images``, a class has too few images, or a file cannot be read.
        """
        own, listed = self.own_images(spec)
        rows = listed.tolist()
        files = [self.folder / self.paths[row] for row in rows]
        return own.read(files, spec, self.name, lambda index: self.where(rows[index]))

    def row_names(self, spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the path of each training and each test image."""
        own, listed = self.own_images(spec)
        return own.row_names([self.paths[row] for row in listed.tolist()], spec)

    def _check_no_repeats(self) -> None:
        first: dict[str, int] = {}
        for row, path in enumerate(map(os.path.normpath, self.paths)):
            if first.setdefault(path, row) != row:
                before = self.where(first[path])
                raise DataError(
                    f"an image must be listed once, but {self.where(row)} has '{path}', as does {before}; remove one"
                )

    def _name_groups(self, rule: str | None) -> Sequence[str] | None:
        if rule == "none":
            return None
        if rule is None:
            return self.groups
        if rule != "folder":
            return match_groups(self.paths, self.folder, rule)
        folders = [os.path.dirname(os.path.normpath(path)) for path in self.paths]
        if "" in folders:
            row = folders.index("")
            raise DataError(
                f"{self.where(row)}: with data.group: folder an image must lie in a folder below {self.folder}, "
                f"but '{self.paths[row]}' does not; move it"
            )
        return folders


class ListedSource(DataSource):
    """Images that text files list."""

    contents = "the images that are listed"

    @abstractmethod
    def find(self, spec: DataSpec) -> Sequence[Path]:
        """Return the text files."""

    @abstractmethod
    def list_images(self, spec: DataSpec, folder: Path) -> Listing:
        """Read the text files; paths are relative to ``folder``."""

    def inputs(self, files: Sequence[Path], spec: DataSpec) -> Iterable[str | Path]:
        """Return the text files and the images."""
        listing = self._listing(spec)
        return [*files, *(os.path.join(listing.folder, path) for path in listing.paths)]

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        """Return all images but those of excluded classes."""
        return self._listing(spec).source_images(spec)

    read_selected = read  # leaves the excluded classes out before it decodes

    def row_names(self, files: Sequence[Path], spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the path of each training and each test image, relative to ``data.path``."""
        return self._listing(spec).row_names(spec)

    def _listing(self, spec: DataSpec) -> Listing:
        listing = self.list_images(spec, user_folder(spec.path, self.contents))
        for row, path in enumerate(listing.paths):
            if not path or path.startswith("/") or (".." in path and ".." in path.split("/")):
                raise DataError(
                    f"{listing.where(row)}: the path of an image must be relative to data.path, {listing.folder}, "
                    f"without '..', but it is '{path}'; correct it"
                )
        return listing


def number_labels(
    labels: Sequence[str], class_names: Sequence[str] | None, exclude: Sequence[str], where: Callable[[int], str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the labels as numbers ``[N]``, and the class names.

    Args:
        labels: of the images ``[N]``: all integers, or all class names.
        class_names: in the order of the integers; None = the integers themselves, or the labels in sorted order.
        exclude: classes that may have no images.
        where: names an image, by its row, in messages.

    Raises:
        DataError: a label is neither, is outside of the range or unknown, or integers have gaps.
    """

    def first(label: str) -> str:
        return where(labels.index(label))

    distinct = list(dict.fromkeys(labels))
    integers = [label for label in distinct if _INTEGER.fullmatch(label)]
    if len(integers) < len(distinct):
        names = _named_classes(distinct, integers, class_names, first)
        numbers = {name: number for number, name in enumerate(names)}
    else:
        names = _numbered_classes(distinct, class_names, exclude, len(labels), first)
        numbers = {label: int(label) for label in distinct}
    return np.array([numbers[label] for label in labels], np.int64), names


def _numbered_classes(
    labels: Sequence[str],
    class_names: Sequence[str] | None,
    exclude: Sequence[str],
    num_images: int,
    first: Callable[[str], str],
) -> tuple[str, ...]:
    limit, counted = (num_images, "images") if class_names is None else (len(class_names), "classes")
    for label in labels:
        if len(label) > _LONGEST_INTEGER or not 0 <= int(label) < limit:
            raise DataError(
                f"{first(label)}: a label must be from 0 to {limit - 1} ({limit:,} {counted}), but it is "
                f"{label[: 2 * _LONGEST_INTEGER]}; correct it"
            )
    if class_names is not None:
        return tuple(class_names)
    largest = max(labels, key=int)
    names = tuple(map(str, range(int(largest) + 1)))
    missing = set(names) - {str(int(label)) for label in labels} - set(exclude)
    if missing:
        raise DataError(
            f"labels must count the classes from 0 without gaps, but {first(largest)} has {largest} and no image has "
            f"{min(missing, key=int)}; number the classes again, or name all of them by data.classes"
        )
    return names


def _named_classes(
    labels: Sequence[str],
    integers: Sequence[str],
    class_names: Sequence[str] | None,
    first: Callable[[str], str],
) -> tuple[str, ...]:
    if "" in labels:
        raise DataError(f"{first('')}: every image must have a label, but this one has none; add it")
    if class_names is not None:
        known = set(class_names)
        for label in labels:
            if label not in known:
                shown = label[:_LONGEST]
                nearest = difflib.get_close_matches(shown, class_names, n=_NAMED, cutoff=0)
                raise DataError(f"{first(label)}: {unknown_name('class', shown, nearest)}")
        return tuple(class_names)
    if integers:
        name = next(label for label in labels if not _INTEGER.fullmatch(label))
        raise DataError(
            f"labels must be all integers or all names, but {first(integers[0])} has {integers[0][:_LONGEST]} and "
            f"{first(name)} has '{name[:_LONGEST]}'; correct one of them, or name all classes by data.classes"
        )
    names = tuple(sorted(labels))
    check_class_names(names, "the data set")
    return names


def read_text(file: Path) -> str:
    """Return the text of a file without its byte order mark.

    Raises:
        DataError: it cannot be read, is empty or not UTF-8.
    """
    content = read_input(file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file}, line {line}: a file must be UTF-8 text, but it has the byte {content[error.start]:#04x} here; "
            "save it as UTF-8"
        ) from None
    if not text.strip():
        raise DataError(f"{file} must list images, but it is empty; write one line per image")
    return text


def read_class_names(file: Path) -> list[str]:
    """Return the class names in a file, one per line.

    Raises:
        DataError: it cannot be read, or a name is empty, cannot be printed or is there twice.
    """
    names = [line.strip() for line in read_text(file).rstrip().split("\n")]
    check_class_names(names, str(file))
    return names
