"""Which images are training and validation images, on generated sources in the order of real ones."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gitdist.data.holdout import hold_out, interleave_groups
from gitdist.data.longtail import class_sizes
from gitdist.data.sources.base import SourceImages
from gitdist.data.splits import split_rows
from gitdist.errors import DataError
from gitdist.spec import DataSpec, ProfileSpec

ZIPF = ProfileSpec(kind="zipf", largest=400, smallest=5)


def source_of(counts: list[int], **fields: Any) -> SourceImages:
    """Return a source whose images are ordered by class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    source = SourceImages(
        name="small",
        train_images=np.random.default_rng(1).integers(0, 256, (len(labels), 1, 4, 4), dtype=np.uint8),
        train_labels=labels,
        test_images=np.zeros((2 * len(counts), 1, 4, 4), np.uint8),
        test_labels=np.repeat(np.arange(len(counts)), 2),
        class_names=tuple(f"class {index}" for index in range(len(counts))),
    )
    return replace(source, **fields)


def tracks(counts: list[int], frames: int = 30) -> NDArray[np.int64]:
    """Return the tracks of a source ordered as GTSRB is: ``frames`` images of one object, then of the next."""
    sizes = [[frames] * (count // frames) + [count % frames] * (count % frames > 0) for count in counts]
    return np.repeat(np.arange(sum(map(len, sizes))), [size for of_class in sizes for size in of_class])


def grouped(counts: list[int], groups: NDArray[np.int64] | None = None, **fields: Any) -> SourceImages:
    groups = tracks(counts) if groups is None else groups
    names = tuple(f"track {index}" for index in range(groups.max() + 1))
    return source_of(counts, train_groups=groups, group_names=names, **fields)


def per_class(source: SourceImages, rows: NDArray[np.int64]) -> list[int]:
    return np.bincount(source.train_labels[rows], minlength=len(source.class_names)).tolist()


def groups_per_class(source: SourceImages, rows: NDArray[np.int64]) -> list[int]:
    assert source.train_groups is not None
    pairs = np.unique(np.stack([source.train_labels[rows], source.train_groups[rows]]), axis=1)
    return np.bincount(pairs[0], minlength=len(source.class_names)).tolist()


@pytest.mark.parametrize(
    ("counts", "share", "limit", "expected"),
    [
        ([50, 100], 0.2, 200, [10, 20]),
        ([50, 100], 0.2, 15, [10, 15]),
        ([50, 100], 0.5, None, [25, 50]),
        ([3, 100, 2000], 0.2, 200, [1, 20, 200]),
        ([2, 3], 0.9, 200, [1, 2]),
        ([100, 100], 0.29, 200, [29, 29]),
    ],
)
def test_each_class_has_validation_images_by_its_own_size(
    counts: list[int], share: float, limit: int | None, expected: list[int]
) -> None:
    source = source_of(counts)
    rows = split_rows(source, DataSpec(validation=share, validation_per_class=limit))
    assert per_class(source, rows.validation) == expected
    assert per_class(source, rows.train) == [count - held for count, held in zip(counts, expected, strict=True)]
    assert len(np.unique([*rows.train, *rows.validation])) == sum(counts)
    assert rows.notes == ()


def test_images_are_drawn_at_random_with_the_version_as_seed() -> None:
    source = source_of([300, 300, 300])
    spec = DataSpec(profile=ProfileSpec(kind="exponential", largest=200, factor=0.1))
    rows = split_rows(source, spec)
    of_class = rows.train[source.train_labels[rows.train] == 1] - 300
    assert len(of_class) == 63 and of_class.max() > 200  # the first 63 are not
    again, other = split_rows(source, spec), split_rows(source, spec.model_copy(update={"version": 1}))
    np.testing.assert_array_equal(rows.train, again.train)
    for one, two in ((rows.train, other.train), (rows.validation, other.validation)):
        assert per_class(source, one) == per_class(source, two)
        assert len(np.intersect1d(one, two)) < 0.7 * len(one)


def test_a_larger_class_has_the_images_of_a_smaller_one_and_more() -> None:
    source = source_of([300, 300])
    small, large = (
        split_rows(source, DataSpec(profile=ProfileSpec(kind="step", largest=largest, factor=1.0)))
        for largest in (50, 120)
    )
    assert set(small.train) < set(large.train)
    np.testing.assert_array_equal(small.validation, large.validation)


def test_a_source_that_keeps_its_order_trains_on_the_first_images_of_each_class() -> None:
    source = source_of([500, 500], keeps_order=True)
    spec = DataSpec(profile=ProfileSpec(kind="exponential", factor=0.1), validation_per_class=50)
    rows, other = split_rows(source, spec), split_rows(source, spec.model_copy(update={"version": 1}))
    assert per_class(source, rows.train) == [450, 45]
    assert rows.train[:400].tolist() == list(range(400)) and rows.train[450:].tolist() == list(range(500, 545))
    assert rows.train[:450].tolist() == [row for row in range(500) if row not in rows.validation]
    assert per_class(source, rows.validation) == [50, 50]
    assert {row % 500 >= 400 for row in rows.validation} == {True}
    assert rows.validation.tolist() != other.validation.tolist()


@pytest.mark.parametrize("fields", [{}, {"keeps_order": True}, {"train_groups": None}], ids=str)
def test_validation_images_are_the_same_for_every_profile(fields: dict[str, Any]) -> None:
    source = replace(grouped(COUNTS), **fields)
    profiles = [ProfileSpec(kind="none", largest=1000), ZIPF, ProfileSpec(kind="power"), ProfileSpec()]
    validation = {tuple(split_rows(source, DataSpec(profile=profile)).validation) for profile in profiles}
    assert len(validation) == 1


def test_reserved_validation_images_are_kept_and_all_others_train() -> None:
    reserved = np.arange(60) % 3 == 0
    source = source_of([40, 20], validation=reserved)
    rows = split_rows(source, DataSpec())
    assert rows.validation.tolist() == np.flatnonzero(reserved).tolist()
    assert sorted(rows.train.tolist()) == np.flatnonzero(~reserved).tolist()


def test_a_class_with_too_few_images_keeps_them_without_copies_and_is_named() -> None:
    source = source_of([5, 9, 400])
    rows = split_rows(source, DataSpec(profile=ProfileSpec(kind="step", largest=100, factor=1.0)))
    assert per_class(source, rows.train) == [4, 8, 100]
    assert len(np.unique(rows.train)) == len(rows.train)
    assert len(rows.notes) == 1 and "class 0 (4 of 100), class 1 (8 of 100)" in rows.notes[0]


@pytest.mark.parametrize(("nuisance", "expected"), [("rotation", [100, 100]), ("none", [40, 80])])
def test_images_repeat_only_if_the_source_allows_it_and_each_is_transformed(nuisance: Any, expected: list[int]) -> None:
    source = source_of([50, 100], repeats=True)
    spec = DataSpec(nuisance=nuisance, profile=ProfileSpec(kind="step", largest=100, factor=1.0))
    assert per_class(source, split_rows(source, spec).train) == expected


COUNTS = [2250, 900, 450, 300, 210, 210, 90, 60]


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("profile", [ZIPF, ProfileSpec(kind="none"), ProfileSpec(kind="power")], ids=lambda p: p.kind)
def test_no_group_lies_in_two_splits_and_class_sizes_are_those_of_the_profile(
    version: int, profile: ProfileSpec
) -> None:
    source = grouped(COUNTS)
    assert source.train_groups is not None
    rows = split_rows(source, DataSpec(profile=profile, version=version))
    assert not np.intersect1d(source.train_groups[rows.train], source.train_groups[rows.validation]).size
    assert len(np.unique(rows.train)) == len(rows.train)
    free = np.flatnonzero(~np.isin(source.train_groups, source.train_groups[rows.validation]))
    available = per_class(source, free)
    asked = class_sizes(profile, available, version)
    assert per_class(source, rows.train) == [min(pair) for pair in zip(asked, available, strict=True)]
    short = any(one > other for one, other in zip(asked, available, strict=True))
    assert short == any("data.profile" in note for note in rows.notes)
    assert all(count > 0 for count in per_class(source, rows.validation))


def test_training_images_are_of_as_many_groups_as_possible() -> None:
    source = grouped(COUNTS)
    rows = split_rows(source, DataSpec(profile=ZIPF))
    left = [30, 15, 10, 7, 7, 3, 2]
    sizes, groups = per_class(source, rows.train), groups_per_class(source, rows.train)
    validated = groups_per_class(source, rows.validation)
    for size, of_train, of_validation, total in zip(sizes, groups, validated, [75, *left], strict=True):
        assert of_train == min(size, total - of_validation) or of_train + of_validation == total
    assert max(groups) > 20


def test_whole_groups_are_validated_as_far_as_the_size_of_validation_allows() -> None:
    source = grouped([3000, 600])
    rows = split_rows(source, DataSpec())
    assert groups_per_class(source, rows.validation) == [6, 4]  # 6 of 30 frames are at most 200
    assert per_class(source, rows.validation) == [180, 120]
    assert per_class(source, rows.train) == [2820, 480]


def test_a_class_of_one_group_trains_and_is_reported_as_not_validated() -> None:
    source = grouped([90, 30])
    rows = split_rows(source, DataSpec())
    assert per_class(source, rows.validation)[1] == 0 and per_class(source, rows.train)[1] == 30
    assert any("without validation" in note and "class 1" in note for note in rows.notes)
    with pytest.raises(DataError, match="no validation images"):
        split_rows(grouped([30, 30]), DataSpec())


@pytest.mark.parametrize("counts", [[1000, 10], [700, 310], [500, 505]])
def test_the_smallest_group_is_held_out_where_all_are_larger_than_validation_may_be(counts: list[int]) -> None:
    groups = np.repeat([0, 1, 2, 3], [*counts, 30, 30])
    source = grouped([sum(counts), 60], groups)
    rows = split_rows(source, DataSpec())
    assert set(groups[rows.validation]) & {0, 1} == {int(np.argmin(counts))}
    assert not np.intersect1d(groups[rows.train], groups[rows.validation]).size


def test_a_group_in_two_classes_is_named() -> None:
    groups = tracks([60, 60])
    groups[60:70] = 1
    with pytest.raises(DataError, match="group 'track 1' of small is in class 0 and class 1"):
        split_rows(grouped([60, 60], groups), DataSpec())


def test_a_group_in_two_splits_is_named() -> None:
    test_groups = np.array([7, 8, 9, 3])
    names = tuple(f"track {index}" for index in range(10))
    source = replace(grouped([60, 60]), test_groups=test_groups, group_names=names)
    with pytest.raises(DataError, match="group 'track 3' of small is in training and test"):
        split_rows(source, DataSpec())
    reserved = np.arange(120) == 0
    with pytest.raises(DataError, match="group 'track 0' of small is in training and validation"):
        split_rows(grouped([60, 60], validation=reserved), DataSpec())


@pytest.mark.parametrize(
    ("counts", "test_labels", "message"),
    [
        ([5, 1], [0, 1], r"at least 2 images in the training split of small, but class 1 \(class 1\) has 1"),
        ([5, 5], [0, 0], "at least 1 images in the test split of small"),
        ([5], [0], "at least 2 classes"),
    ],
)
def test_too_few_images_are_one_line(counts: list[int], test_labels: list[int], message: str) -> None:
    test = np.zeros((len(test_labels), 1, 4, 4), np.uint8)
    source = source_of(counts, test_images=test, test_labels=np.array(test_labels))
    with pytest.raises(DataError, match=message) as caught:
        split_rows(source, DataSpec())
    assert "\n" not in str(caught.value)


def test_every_beginning_of_a_spread_order_has_as_many_groups_as_possible() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        groups = rng.integers(0, rng.integers(1, 12), rng.integers(1, 60))
        rows = 100 + np.arange(len(groups))
        order = interleave_groups(rows, groups, rng)
        assert sorted(order.tolist()) == rows.tolist()
        for size in range(1, len(rows) + 1):
            assert len(set(groups[order[:size] - 100])) == min(size, len(set(groups)))


def test_held_out_rows_of_random_groups_share_none_with_the_rest() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        groups = rng.integers(0, rng.integers(2, 15), rng.integers(4, 200))
        rows, count = np.arange(len(groups)), int(rng.integers(1, len(groups) // 2))
        found = hold_out(rows, groups, count, rng)
        assert not np.intersect1d(groups[found.held_out], groups[found.rest]).size
        assert len(found.rest) > 0 and len(found.held_out) <= count
        assert bool(len(found.held_out)) == (len(set(groups)) > 1)
