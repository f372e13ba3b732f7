"""The user's own images, from a folder, lists, a table or a plugin: their classes, splits and groups.

Splits that are given are used as they are. Without test images, ``test_share * n``, rounded down, of the n training
images of each class become its test images: at least 1, and some are left for the other splits. This random choice
depends on the class's name, n and its groups alone. Without validation images, ``split_rows`` chooses them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gitdist.data import SPLITS
from gitdist.data.holdout import hold_out
from gitdist.data.longtail import floor
from gitdist.data.sources.base import SourceImages, check_excluded, exclusion, number_groups
from gitdist.data.sources.decoding import decode_images
from gitdist.errors import DataError
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec

# what folders and tables call them
SPLIT_NAMES = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True, eq=False)
class OwnImages:
    """Class, split and group of each image, in the user's order."""

    class_names: tuple[str, ...]
    labels: NDArray[np.int64]  # [N], counted from 0
    splits: NDArray[np.int64]  # [N], indices into SPLITS
    groups: Sequence[str] | None  # [N]; None = no groups
    given: Mapping[str, str]  # how messages name each split that is given; train is
    notes: tuple[str, ...] = ()

    def without_classes(self, exclude: Sequence[str]) -> tuple["OwnImages", NDArray[np.int64]]:
        """Return the images without those of some classes, and their rows; raise DataError for an unknown class."""
        check_excluded(exclude, self.class_names)
        kept_classes = np.array([name not in exclude for name in self.class_names], np.bool_)
        if not kept_classes.any():
            raise DataError(f"data.exclude must leave classes, but it names all {len(kept_classes)}; remove some")
        rows = np.flatnonzero(kept_classes[self.labels])
        counts = dict(zip(self.class_names, np.bincount(self.labels, minlength=len(kept_classes)), strict=True))
        kept = replace(
            self,
            class_names=tuple(name for name in self.class_names if name not in exclude),
            labels=(np.cumsum(kept_classes) - 1)[self.labels[rows]],
            splits=self.splits[rows],
            groups=None if self.groups is None else [self.groups[row] for row in rows.tolist()],
            notes=(*self.notes, *excluded_notes(exclude, counts)),
        )
        return kept, rows

    def official_rows(self, spec: DataSpec) -> "OfficialRows":
        """Return the rows of the official splits; split the test images off training if none are given.

        Raises:
            DataError: a class has too few images, or too few groups, for the splits.
        """
        self._check_class_sizes()
        train, validation, test = (np.flatnonzero(self.splits == split) for split in range(len(SPLITS)))
        notes = self.notes
        if "test" not in self.given:
            train, test = self._split_off_test(train, spec.test_share)
            notes += (f"test: {spec.test_share:.0%} of the images of each class, the same for every data.version",)
        rows = np.concatenate([train, validation])
        reserved = np.arange(len(rows)) >= len(train) if "validation" in self.given else None
        return OfficialRows(train=rows, validation=reserved, test=test, notes=notes)

    def row_names(self, names: Sequence[str], spec: DataSpec) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the training and of the test images, of ``names`` of all."""
        rows = self.official_rows(spec)
        return tuple(names[row] for row in rows.train.tolist()), tuple(names[row] for row in rows.test.tolist())

    def read(
        self, files: Sequence[Path], spec: DataSpec, name: str, where: Callable[[int], str] | None = None
    ) -> SourceImages:
        """Return the data set of the images in ``files``; ``where`` names a file by its row, for messages.

        Raises:
            DataError: as ``official_rows``, or a file cannot be read.
        """
        official = self.official_rows(spec)
        rows, num_train = [*official.train.tolist(), *official.test.tolist()], len(official.train)
        named = None if where is None else lambda index: where(rows[index])
        images, notes = decode_images([files[row] for row in rows], spec.image_size, named)
        source = self.source_images(official, name, images[:num_train], images[num_train:])
        return replace(source, notes=(*notes, *source.notes))

    def source_images(
        self, rows: "OfficialRows", name: str, train_images: NDArray[np.uint8], test_images: NDArray[np.uint8]
    ) -> SourceImages:
        """Return the data set of official rows and their images ``[N, C, H, W]``."""
        of_row = [] if self.groups is None else [self.groups[row] for row in (*rows.train, *rows.test)]
        groups, group_names = number_groups(of_row)
        return SourceImages(
            name=name,
            train_images=train_images,
            train_labels=self.labels[rows.train],
            test_images=test_images,
            test_labels=self.labels[rows.test],
            class_names=self.class_names,
            notes=rows.notes,
            train_groups=None if self.groups is None else groups[: len(rows.train)],
            test_groups=None if self.groups is None else groups[len(rows.train) :],
            group_names=group_names,
            validation=rows.validation,
        )

    def _check_class_sizes(self) -> None:
        missing = [split for split in SPLITS if split not in self.given]
        for split, where in self.given.items():
            if split == "validation":  # a class may have none
                continue
            uses = ["training", *missing] if split == "train" else [split]
            counts = np.bincount(self.labels[self.splits == SPLITS.index(split)], minlength=len(self.class_names))
            small = np.flatnonzero(counts < len(uses))
            if small.size:
                names = [self.class_names[label] for label in small]
                others = f", and {len(names) - 1} more have too few" if names[1:] else ""
                raise DataError(
                    f"a class must have at least {len(uses)} images in {where} for {' and '.join(uses)}, but "
                    f"'{names[0]}' has {counts[small[0]]}{others}; add images or {exclusion(names)}"
                )

    def _split_off_test(self, train: NDArray[np.int64], share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the training and the test rows; at least one image of each class stays for each missing split."""
        spare = 1 if "validation" in self.given else 2
        by_class = np.argsort(self.labels[train], kind="stable")
        ends = np.cumsum(np.bincount(self.labels[train], minlength=len(self.class_names)))
        held_out = np.zeros(len(train), np.bool_)
        rest = np.zeros(len(train), np.bool_)
        for name, positions in zip(self.class_names, np.split(by_class, ends[:-1]), strict=True):
            count = min(max(floor(share * len(positions)), 1), len(positions) - spare)
            groups = None
            if self.groups is not None:
                groups, group_names = number_groups([self.groups[row] for row in train[positions]])
                if len(group_names) == 1:
                    raise DataError(
                        f"a class must have at least 2 groups for training and test, but '{name}' has "
                        f"'{group_names[0]}' only; add images, provide a test split, or {exclusion([name])}"
                    )
            drawn = hold_out(np.arange(len(positions)), groups, count, numpy_rng(0, f"data/images/test/{name}"))
            held_out[positions[drawn.held_out]] = True
            rest[positions[drawn.rest]] = True  # with groups, some images may be in neither
        return train[rest], train[held_out]


@dataclass(frozen=True, kw_only=True, eq=False)
class OfficialRows:
    """The rows of ``OwnImages`` in the two official splits, int64 ``[N]`` and ``[M]``."""

    train: NDArray[np.int64]  # those of training, then those of validation
    validation: NDArray[np.bool_] | None  # [N]; None = validation images are not given
    test: NDArray[np.int64]
    notes: tuple[str, ...]


def excluded_notes(exclude: Sequence[str], counts: Mapping[str, int]) -> list[str]:
    """Return one note per class that ``data.exclude`` leaves out, with its number of images."""
    return [f"left out by data.exclude: {name} (images: {counts[name]:,})" for name in exclude]
