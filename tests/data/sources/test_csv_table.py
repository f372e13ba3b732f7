"""CSV tables: a row for each image."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitdist.data.sources import load_source, row_names
from gitdist.data.sources.base import SourceImages
from gitdist.errors import DataError
from gitdist.spec import DataSpec
from tests.data.sources.test_images import pixels, save, write_flat

ALL = {"split": "split", "group": "patient"}


def load(root: Path, columns: dict[str, str] | None = None, **fields: Any) -> SourceImages:
    return load_source(spec_of(root, columns, **fields))


def spec_of(root: Path, columns: dict[str, str] | None = None, **fields: Any) -> DataSpec:
    return DataSpec(source="csv", path=str(root), table=str(root / "images.csv"), columns=columns or {}, **fields)


def refused(root: Path, message: str, columns: dict[str, str] | None = None, **fields: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(root, columns, **fields)
    assert "\n" not in str(caught.value)


def write_table(root: Path, rows: Sequence[Sequence[object]], **options: Any) -> None:
    with open(root / "images.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows(rows)


HEADER = ("id", "image", "label", "split", "patient")


def rows_of(names: Sequence[str] = ("owl", "cat"), splits: Sequence[str] = ("train", "val", "test")) -> list[tuple]:
    """Ten rows per class: five of training, two of validation, three of test; two images of each patient."""
    of_index = [splits[0]] * 5 + [splits[1]] * 2 + [splits[2]] * 3
    return [
        (index, f"{name}/{index:02d}.png", name, of_index[index], f"{name} {split}")
        for name in names
        for index, split in enumerate([0, 0, 1, 1, 2, 3, 3, 4, 4, 5])
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_flat(tmp_path)
    write_table(tmp_path, [HEADER, *rows_of()])
    return tmp_path


@pytest.mark.parametrize(
    "splits", [("train", "val", "test"), ("Train", "VALID", " test"), ("train", "validation", "test")]
)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_splits_and_groups_are_those_of_the_columns(root: Path, delimiter: str, splits: tuple[str, ...]) -> None:
    write_table(root, [HEADER, *rows_of(splits=splits)], delimiter=delimiter, quoting=csv.QUOTE_ALL)
    source = load(root, ALL)
    assert source.class_names == ("cat", "owl")
    assert np.bincount(source.train_labels).tolist() == [7, 7] and np.bincount(source.test_labels).tolist() == [3, 3]
    assert source.validation is not None and source.validation.sum() == 4
    assert source.train_groups is not None and source.test_groups is not None
    assert [source.group_names[group] for group in source.train_groups[:3]] == ["owl 0", "owl 0", "owl 1"]
    assert [source.group_names[group] for group in source.test_groups[:3]] == ["owl 4", "owl 4", "owl 5"]
    np.testing.assert_array_equal(source.train_images[0], pixels(0, 16, 16).transpose(2, 0, 1))
    names = row_names(spec_of(root, ALL))
    assert names is not None and names[1] == tuple(f"{name}/{n:02d}.png" for name in ("owl", "cat") for n in (7, 8, 9))


def test_without_columns_of_splits_and_groups_all_rows_are_training_images(root: Path) -> None:
    source = load(root)
    assert np.bincount(source.test_labels).tolist() == [2, 2]
    assert source.validation is None and source.train_groups is None
    grouped = load(root, {"group": "patient"})
    assert grouped.train_groups is not None and len(grouped.group_names) == 12
    assert load(root, {"group": "patient"}, group="none").train_groups is None
    write_table(root, [HEADER, *(row for row in rows_of() if row[3] != "test")])
    source = load(root, {"split": "split"})
    assert source.validation is not None and source.validation.sum() == 4 and len(source.test_labels) == 2


def test_any_table_that_a_spreadsheet_writes_is_read(root: Path) -> None:
    for number in range(2):
        save(root / f'a, "b"\n{number}.png', pixels(7 + number, 16, 16))
    rows = [*rows_of(), (0, 'a, "b"\n0.png', "cat", "train", "x\r\ny"), (0, 'a, "b"\n1.png', "cat", "train", "z")]
    write_table(root, [HEADER, *rows])
    (root / "images.csv").write_bytes(b"\xef\xbb\xbf" + (root / "images.csv").read_bytes() + b"\r\n\r\n")
    assert len(load(root, ALL).train_labels) == 16
    with open(root / "images.csv", "a") as file:
        file.write('0,"absent\n.png",cat,train,q\n')
    refused(root, r"images.csv, line 29: cannot read .*absent\\n.png", ALL)


def test_empty_lines_before_the_names_of_the_columns_are_skipped(root: Path) -> None:
    write_table(root, [[], HEADER, *rows_of()], delimiter=";")
    assert len(load(root, ALL).train_labels) == 14


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((0, "cat/absent.png", "cat", "train", "p"), "line 22: cannot read .*cat/absent.png"),
        ((0, "../new.png", "cat", "train", "p"), "line 22: the path"),
        ((0, "", "cat", "train", "p"), "line 22: the path"),
        ((0, "cat/00.png", "cat", "train", "p"), "line 22 has 'cat/00.png', as does .*images.csv, line 12"),
        ((0, "new.png", "", "train", "p"), "line 22: every image must have a label"),
        ((0, "new.png", "7", "train", "p"), "all integers or all names, but .*line 22 has 7 and .*line 2 has 'owl'"),
        ((0, "new.png", "cat", "trian", "p"), "line 22: column 'split': unknown split 'trian'; did you mean 'train'"),
        ((0, "new.png", "cat", "", "p"), "line 22: column 'split': unknown split ''; known: test"),
        ((0, "new.png", "cat", "train", ""), "line 22: .*group in column 'patient'"),
        (
            (0, "new.png", "yak", "test", "p"),
            r"1 images in the train rows of .*images.csv for training, but 'yak' has 0",
        ),
        ((0, "new.png", "cat", "train"), "line 22: a row must have 5 fields .* has 4"),
        ((0, "new.png", "cat", "train", "p", ""), "line 22: a row must have 5 fields .* has 6"),
    ],
)
def test_a_row_that_is_not_valid_is_named(root: Path, row: tuple, message: str) -> None:
    save(root / "new.png", pixels(1, 16, 16))
    write_table(root, [HEADER, *rows_of(), row])
    refused(root, message, ALL)


def test_a_table_that_is_not_valid_is_named(root: Path) -> None:
    refused(root, "images.csv: data.columns: unknown column 'labels'; did you mean 'label'", {"label": "labels"})
    refused(root, "unknown column 'x'; known: id, image, label, patient, split", {"group": "x"})
    text = (root / "images.csv").read_text()
    for content, message in (
        (text.replace("id,", "label,", 1), "images.csv has 'label' twice"),
        (text + '0,"new', "line 22: a row must be valid CSV"),
        (text + '0,"new"x,1,2,3', "line 22: a row must be valid CSV"),
        ("image,label\n" + "x" * 200_000, "line 2: a row must be valid CSV"),
        ("image,label\n", "only the names of its columns"),
        ("", "it is empty"),
        ("\n\n", "it is empty"),
        ("image\n", "unknown column 'label'"),
    ):
        (root / "images.csv").write_text(content)
        refused(root, message)
    write_table(root, [HEADER, *(row for row in rows_of() if row[3] == "test")])
    refused(root, "must have rows of the split train, but has only test", {"split": "split"})
    (root / "images.csv").write_bytes(text.encode().replace(b"patient", b"pati\xebnt"))
    refused(root, "line 1: .* UTF-8 .* 0xeb")
    (root / "images.csv").unlink()
    refused(root, "cannot read .*images.csv: No such file")


def test_a_long_table_is_read_without_a_look_at_each_file(tmp_path: Path) -> None:
    rows = [(index, f"{index}.png", index % 100, "train", f"p{index}") for index in range(115_000)]
    write_table(tmp_path, [HEADER, *rows])
    names = row_names(spec_of(tmp_path, {"split": "split"}))  # none of the images exists
    assert names is not None and (len(names[0]), len(names[1])) == (92_000, 23_000)
