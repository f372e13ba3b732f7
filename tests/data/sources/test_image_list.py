"""Image lists: one text file per split, each line a path and a label."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitdist.data.sources import load_source, row_names, source_digest, source_files
from gitdist.data.sources.base import SourceImages
from gitdist.data.splits import split_rows
from gitdist.errors import DataError
from gitdist.spec import DataSpec
from tests.data.sources.test_images import pixels, save, write_flat

NAMES = ("owl", "cat")


def spec_of(root: Path, **fields: Any) -> DataSpec:
    lists = {split: str(root / f"{split}.txt") for split in ("train", "validation", "test")}
    given = {split: file for split, file in lists.items() if Path(file).exists()}
    return DataSpec(**{"source": "list", "path": str(root), **given, **fields})


def load(root: Path, **fields: Any) -> SourceImages:
    return load_source(spec_of(root, **fields))


def refused(root: Path, message: str, **fields: Any) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(root, **fields)
    assert "\n" not in str(caught.value)


def write_list(root: Path, split: str, lines: Sequence[str]) -> None:
    (root / f"{split}.txt").write_text("".join(f"{line}\n" for line in lines))


def lines_of(numbers: range, labels: Sequence[object] = (0, 1)) -> list[str]:
    return [f"{name}/{index:02d}.png {label}" for name, label in zip(NAMES, labels, strict=True) for index in numbers]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ten images each of owl and cat, and a list of all."""
    write_flat(tmp_path, 10, NAMES)
    write_list(tmp_path, "train", lines_of(range(10)))
    return tmp_path


def test_the_images_are_those_of_the_lists_in_their_order(root: Path) -> None:
    write_list(root, "train", ["cat/03.png 1", "owl/01.png 0", "cat/00.png 1", "owl/00.png 0"])
    write_list(root, "validation", ["owl/02.png 0"])
    write_list(root, "test", lines_of(range(4, 6)))
    source = load(root)
    seeds = [103, 1, 100, 0, 2]  # of ``write_flat``
    np.testing.assert_array_equal(source.train_images, [pixels(seed, 16, 16).transpose(2, 0, 1) for seed in seeds])
    assert source.train_labels.tolist() == [1, 0, 1, 0, 0] and source.test_labels.tolist() == [0, 0, 1, 1]
    assert source.validation is not None and source.validation.tolist() == [False] * 4 + [True]
    assert (source.name, source.class_names) == (root.name, ("0", "1"))
    names = row_names(spec_of(root))
    assert names == (
        ("cat/03.png", "owl/01.png", "cat/00.png", "owl/00.png", "owl/02.png"),
        ("owl/04.png", "owl/05.png", "cat/04.png", "cat/05.png"),
    )


def test_missing_splits_are_split_off_training_as_for_a_folder(root: Path) -> None:
    write_list(root, "train", lines_of(range(10), NAMES))
    listed, folder = load(root), load_source(DataSpec(source="images", path=str(root)))
    assert folder.class_names == listed.class_names
    assert np.array_equal(np.sort(listed.test_images, axis=0), np.sort(folder.test_images, axis=0))
    rows = split_rows(listed, DataSpec())
    assert (len(rows.train), len(rows.validation), len(listed.test_labels)) == (14, 2, 4)
    assert len(load(root, test_share=0.5).test_labels) == 10
    write_list(root, "validation", lines_of(range(8, 10)))
    write_list(root, "train", lines_of(range(8)))
    assert len(load(root).test_labels) == 2 and load(root).class_names == ("0", "1")


@pytest.mark.parametrize("ending", ["\n", "\r\n", " \n\n", "\t \r\n"])
@pytest.mark.parametrize("separator", [" ", "   ", "\t", " \t "])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_lists_of_any_system_are_read(tmp_path: Path, start: bytes, separator: str, ending: str) -> None:
    for index in range(6):
        save(tmp_path / "a b" / f"ä {index}.png", pixels(index, 8, 8))
    text = "".join(f"a b/ä {index}.png{separator}{index % 2}{ending}" for index in range(6))
    (tmp_path / "train.txt").write_bytes(start + text.encode())
    source = load(tmp_path)
    assert len(source.train_labels) == 4 and source.class_names == ("0", "1")


def test_classes_may_be_named_in_a_file_or_by_the_labels(root: Path) -> None:
    classes = root / "classes.txt"
    classes.write_text("the owl\r\nthe cat\r\n")
    assert load(root, classes=str(classes)).class_names == ("the owl", "the cat")
    write_list(root, "train", [line.replace(" ", "\tthe ") for line in lines_of(range(10), NAMES)])
    given, derived = load(root, classes=str(classes)), load(root)
    assert (given.class_names, given.test_labels.tolist()) == (("the owl", "the cat"), [0, 0, 1, 1])
    assert (derived.class_names, derived.test_labels.tolist()) == (("the cat", "the owl"), [1, 1, 0, 0])
    assert load(root, exclude=["the cat"]).class_names == ("the owl",)
    classes.write_text("the owl\nthe kat\n")
    refused(root, r"train.txt, line 11: unknown class 'the cat'; did you mean 'the kat'", classes=str(classes))
    refused(root, "data.exclude: unknown class 'cat'", exclude=["cat"])
    refused(root, "data.exclude must leave classes", exclude=["the cat", "the owl"])
    classes.write_text("the owl\n\nthe cat\n")
    refused(root, "classes.txt has ''", classes=str(classes))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat/absent.png 1", r"train.txt, line 21: cannot read .*/cat/absent.png: No such file"),
        ("cat 1", r"train.txt, line 21: .*must be a file"),
        ("../cat/00.png 1", r"train.txt, line 21: the path .* without '..'"),
        ("cat/../cat/00.png 1", r"train.txt, line 21: .* without '..'"),
        ("/etc/passwd 1", r"train.txt, line 21: .* must be relative to data.path"),
        ("train.txt 1", r"train.txt, line 21: every image must be readable"),
        ("cat/00.png", r"train.txt, line 21: a line must be the path of an image, a space or a tab, and a label"),
        ("cat/00.png,1", r"train.txt, line 21: a line must be"),
        ("cat/00.png 1", r"train.txt, line 21 has 'cat/00.png', as does .*train.txt, line 11"),
        ("./cat//00.png 1", r"train.txt, line 21 has 'cat/00.png', as does .*train.txt, line 11"),
        ("new.png one", r"all integers or all names, but .*train.txt, line 1 has 0 and .*train.txt, line 21 has 'one'"),
        ("new.png 1.5", r"line 21 has '1.5'"),
        ("new.png -1", r"train.txt, line 21: a label must be from 0 to 20 \(21 images\), but it is -1"),
        ("new.png 21", r"train.txt, line 21: a label must be from 0 to 20"),
        (f"new.png {'9' * 5000}", r"train.txt, line 21: a label must be from 0 to 20 .* 9{36};"),
        ("new.png 3", r"without gaps, but .*train.txt, line 21 has 3 and no image has 2"),
        ("new.png 2", r"at least 3 images in .*train.txt for training and validation and test, but '2' has 1"),
        ("new\x00.png 2\nnew\x00\x00.png 2\nnew.png 2", r"train.txt, line 2[12]: cannot read"),
        ("new.png 2\nb.png 2\n\x1b[31m\x85.png 2", r"train.txt, line 22: cannot read .*b.png"),
    ],
)
def test_a_line_that_is_not_valid_is_named(root: Path, line: str, message: str) -> None:
    save(root / "new.png", pixels(1, 16, 16))
    with open(root / "train.txt", "a") as file:
        file.write(f"{line}\n")
    refused(root, message)


def test_a_list_that_is_not_valid_is_named(root: Path) -> None:
    write_list(root, "test", ["cat/00.png 1"])
    refused(root, "test.txt, line 1 has 'cat/00.png', as does .*train.txt, line 11")
    write_list(root, "train", lines_of(range(1, 10)))
    refused(root, r"at least 1 images in .*test.txt for test, but '0' has 0")
    write_list(root, "train", lines_of(range(1, 10))[9:])
    refused(root, r"without gaps, but .*train.txt, line 1 has 1 and no image has 0")
    for content, message in (
        (b"", "test.txt must list images, but it is empty"),
        (b"\xef\xbb\xbf\r\n \n", "is empty"),
        (b"cat/00.png 1\ncaf\xe9.png 1\n", "test.txt, line 2: .* UTF-8 .* 0xe9"),
        ("cat/00.png 1\n".encode("utf-16"), "test.txt, line 1: .* UTF-8 .* 0xff"),
    ):
        (root / "test.txt").write_bytes(content)
        refused(root, message)
    refused(root, "cannot read .*absent.txt: No such file", test=str(root / "absent.txt"))
    with pytest.raises(DataError, match="data.path must be a folder"):
        load_source(spec_of(root, path=str(root / "absent")))
    with pytest.raises(DataError, match="data.path is missing"):
        load_source(spec_of(root).model_copy(update={"path": None}))


def test_links_are_followed_wherever_they_lead(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (root / "cat").rename(elsewhere / "cat")
    (root / "cat").symlink_to(elsewhere / "cat")
    assert len(load(root).train_labels) == 16


def test_groups_are_folders_or_matches_of_a_rule(tmp_path: Path) -> None:
    lines = []
    for index in range(24):
        path = f"images/p{index // 3}/{index}.png"
        save(tmp_path / path, pixels(index, 8, 8))
        lines.append(f"{path} {index // 12}")
    write_list(tmp_path, "train", lines)
    for rule in ("folder", r"p\d+"):
        source = load(tmp_path, group=rule, test_share=0.3)
        assert source.train_groups is not None and source.test_groups is not None
        assert len(source.test_groups) == 6 and len(source.group_names) == 8
        assert not set(source.train_groups.tolist()) & set(source.test_groups.tolist())
    assert load(tmp_path, group="none").train_groups is None
    refused(tmp_path, "does not match images/p0/0.png", group="dog")
    save(tmp_path / "loose.png", pixels(99, 8, 8))
    for path in ("loose.png", "./loose.png"):
        write_list(tmp_path, "train", [*lines, f"{path} 1"])
        refused(tmp_path, rf"train.txt, line 25: with data.group: folder .* '{path}'", group="folder")


def test_the_digest_is_that_of_what_is_read(root: Path) -> None:
    before = source_digest(spec_of(root))
    write_list(root, "train", [*lines_of(range(10)), ""])
    assert source_digest(spec_of(root)) == before
    save(root / "cat" / "05.png", pixels(999, 16, 16))
    changed = source_digest(spec_of(root))
    write_list(root, "train", lines_of(range(9)))
    assert len({before, changed, source_digest(spec_of(root)), source_digest(spec_of(root, test_share=0.4))}) == 4
    assert [str(file) for file in source_files(spec_of(root))][:2] == [f"{root}/train.txt", f"{root}/owl/00.png"]


def test_a_long_list_is_read_without_a_look_at_each_file(tmp_path: Path) -> None:
    lines = [f"train/n{index % 1000:08d}/{index}.JPEG {index % 1000}" for index in range(115_000)]
    write_list(tmp_path, "train", lines)
    names = row_names(spec_of(tmp_path))  # none of the images exists
    assert names is not None and (len(names[0]), len(names[1])) == (92_000, 23_000)


def test_fields_of_lists_are_refused_for_other_sources() -> None:
    for fields, message in (
        ({"train": "a.txt"}, "train applies only to the source list"),
        ({"validation": "a.txt", "source": "csv", "table": "t.csv"}, "validation must be a number"),
        ({"source": "list"}, "the source list needs train"),
        ({"source": "list", "train": "a.txt", "table": "t.csv"}, "table applies only to the source csv"),
        ({"source": "csv"}, "the source csv needs table"),
        ({"source": "plugin"}, "the source plugin needs target"),
        ({"source": "csv", "table": "t.csv", "columns": {"group": "g"}, "group": "folder"}, "columns.group"),
        ({"source": "plugin", "target": "a:b", "group": "folder"}, "group must be none or omitted"),
    ):
        with pytest.raises(ValueError, match=message):
            DataSpec(**fields)
