"""Splits the official training images of a data set into training and validation, seeded and group by group.

of each class:  official training images --v_c--> validation (first, so that every class is validated)
                                         --rest-> training, as many as the class-size profile asks for
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gitdist.data.holdout import HeldOut, hold_out, interleave_groups
from gitdist.data.longtail import class_sizes, floor
from gitdist.data.sources.base import SourceImages, check_labels, exclusion
from gitdist.errors import DataError
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec

_NAMED = 3  # classes that a note names; the others are counted


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitRows:
    """The official training rows of the training and the validation split, int64 ``[N]``, each ordered by class.

    ``notes`` say, one line each, which classes have fewer images than the profile asks for and which have no validation
    images.
    """

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def split_rows(source: SourceImages, spec: DataSpec) -> SplitRows:
    """Choose the training and the validation images of each class, at random with the seed ``spec.version``.

    Of a class with n official training images, ``floor(validation * n)``, at least 1 and at most
    ``validation_per_class``, are held out for validation, unless the source reserves validation images itself. The
    training images are taken from the rest, as many as the profile asks for or as there are. Images of one group lie in
    one split (``hold_out``), and the training images are of as many groups as possible. If a source keeps its order,
    validation is drawn from the last ``validation * n`` images and training takes the first of the others. Validation
    does not depend on the profile.

    Raises:
        DataError: a class has fewer than two training images or no test image, there is only one class, no class has
            validation images, or a group lies in several classes or splits.
    """
    if len(source.class_names) < 2:
        raise DataError(f"a data set must have at least 2 classes, but {source.name} has {len(source.class_names)}")
    _check_groups(source)
    classes = _split_classes(source, spec)
    available = [len(each.rest) for each in classes]
    asked = class_sizes(spec.profile, available, spec.version)
    repeats = source.repeats and spec.nuisance != "none"
    sizes = asked if repeats else [min(pair) for pair in zip(asked, available, strict=True)]
    validation = [each.held_out for each in classes]
    if not any(len(rows) for rows in validation):
        raise DataError(
            f"{source.name} has no validation images: each class is one group, or the validation folder is empty; "
            "correct data.group or remove the folder"
        )
    return SplitRows(
        train=np.concatenate([np.resize(each.rest, size) for each, size in zip(classes, sizes, strict=True)]),
        validation=np.concatenate(validation),
        notes=tuple(_notes(source.class_names, asked, sizes, [len(rows) for rows in validation])),
    )


def _split_classes(source: SourceImages, spec: DataSpec) -> list[HeldOut]:
    reserved = source.validation
    free = np.ones(len(source.train_labels), np.bool_) if reserved is None else ~reserved
    least = 2 if reserved is None else 1  # one for validation
    train_split, test_split = f"the training split of {source.name}", f"the test split of {source.name}"
    counts = _class_counts(source.train_labels[free], source.class_names, least, train_split)
    _class_counts(source.test_labels, source.class_names, 1, test_split)
    classes = []
    for label, name in enumerate(source.class_names):
        of_class = source.train_labels == label
        rows, rng = np.flatnonzero(of_class & free), numpy_rng(spec.version, f"data/split/{name}")
        groups = None if source.train_groups is None else source.train_groups[rows]
        total = int(counts[label])
        count = min(max(floor(spec.validation_share * total), 1), spec.validation_per_class or total, max(total - 1, 1))
        if reserved is not None:
            rest = rng.permutation(rows) if groups is None else interleave_groups(rows, groups, rng)
            classes.append(HeldOut(held_out=np.flatnonzero(of_class & reserved), rest=rest))
        elif source.keeps_order:
            last = rows[-max(count, floor(spec.validation_share * len(rows))) :]
            held_out = np.sort(rng.permutation(last)[:count])
            classes.append(HeldOut(held_out=held_out, rest=np.setdiff1d(rows, held_out)))
        else:
            classes.append(hold_out(rows, groups, count, rng))
    return classes


def _class_counts(labels: NDArray[np.int64], class_names: Sequence[str], least: int, split: str) -> NDArray[np.int64]:
    """Return the number of images of each class, ``[C]``; refuse a class with fewer than ``least``."""
    check_labels(labels, len(class_names), split)
    counts = np.bincount(labels, minlength=len(class_names))
    if counts.min() < least:
        smallest = int(counts.argmin())
        name = class_names[smallest]
        raise DataError(
            f"every class must have at least {least} images in {split}, but class {smallest} ({name}) has "
            f"{counts[smallest]}; add images or {exclusion([name])}"
        )
    return counts


def _check_groups(source: SourceImages) -> None:
    """Refuse a group whose images lie in several classes or splits."""
    if source.train_groups is None:
        return
    names, labels = source.group_names, source.train_labels
    first = np.full(len(names), -1, np.int64)
    first[source.train_groups] = labels  # some label of each group
    other = np.flatnonzero(first[source.train_groups] != labels)
    if other.size:
        group = source.train_groups[other[0]]
        one, two = sorted((source.class_names[labels[other[0]]], source.class_names[first[group]]))
        raise DataError(
            f"a group must be in one class, but group '{names[group]}' of {source.name} is in {one} and {two}; correct "
            "the labels, or data.group (a regular expression can match the class too)"
        )
    reserved = np.zeros(len(labels), np.bool_) if source.validation is None else source.validation
    splits = {
        "training": source.train_groups[~reserved],
        "validation": source.train_groups[reserved],
        "test": np.array([], np.int64) if source.test_groups is None else source.test_groups,
    }
    for one, two in (("training", "validation"), ("training", "test"), ("validation", "test")):
        both = np.intersect1d(splits[one], splits[two])
        if both.size:
            raise DataError(
                f"a group must be in one split, but group '{names[both[0]]}' of {source.name} is in {one} and {two}; "
                "move its images into one of them"
            )


def _notes(
    class_names: Sequence[str], asked: Sequence[int], sizes: Sequence[int], num_validation: Sequence[int]
) -> list[str]:
    classes = list(zip(class_names, asked, sizes, num_validation, strict=True))
    short = [f"{name} ({size:,} of {wanted:,})" for name, wanted, size, _ in classes if size < wanted]
    unvalidated = [name for name, *_, count in classes if not count]
    found = {
        "classes with fewer training images than data.profile asks for": short,
        "classes without validation images (not measured in selection)": unvalidated,
    }
    return [f"{title}: {name_first(names, _NAMED)}" for title, names in found.items() if names]


def name_first(entries: Sequence[str], limit: int) -> str:
    """Return the first ``limit`` entries as one text, and how many more there are."""
    others = f" and {len(entries) - limit} more" if len(entries) > limit else ""
    return f"{', '.join(entries[:limit])}{others}"
