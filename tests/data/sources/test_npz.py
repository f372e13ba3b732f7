import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitdist.data.sources import load_source, source_digest
from gitdist.errors import DataError
from gitdist.spec import DataSpec
from tests.unprivileged import shared_folder, unprivileged


def arrays(count: int = 12, **changed: Any) -> dict[str, Any]:
    images = np.random.default_rng(count).integers(0, 256, (count, 6, 5, 3), dtype=np.uint8)
    values = {"images": images, "labels": np.arange(count) % 3, "classes": np.array(["cat", "dog", "owl"])} | changed
    return {name: value for name, value in values.items() if value is not None}


def write(folder: Path, **changed: Any) -> DataSpec:
    np.savez_compressed(folder / "train-small.npz", **arrays(**changed))
    np.savez(folder / "test.npz", **arrays(9))
    return DataSpec(source="npz", path=str(folder))


def test_images_become_channels_first_in_the_order_of_the_file(tmp_path: Path) -> None:
    source = load_source(write(tmp_path, rank=np.arange(12)[::-1]))
    np.testing.assert_array_equal(source.train_images.transpose(0, 2, 3, 1), arrays()["images"])
    assert source.train_images.flags.c_contiguous and source.train_labels.dtype == np.int64
    assert source.train_labels.tolist() == [0, 1, 2] * 4
    assert source.class_names == ("cat", "dog", "owl")


def test_grey_images_have_one_channel_and_unnamed_classes_their_number(tmp_path: Path) -> None:
    for name, count in (("train.npz", 8), ("test.npz", 4)):
        np.savez(tmp_path / name, images=np.ones((count, 6, 5), np.uint8), labels=np.arange(count, dtype=np.uint8) % 2)
    source = load_source(DataSpec(source="npz", path=str(tmp_path)))
    assert source.test_images.shape == (4, 1, 6, 5)
    assert source.class_names == ("0", "1")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": None}, "key 'images'"),
        ({"labels": None}, "key 'labels'"),
        ({"images": np.zeros((12, 6, 5, 3))}, "float64"),
        ({"images": np.zeros((12, 90), np.uint8)}, r"\[12, 90\]"),
        ({"images": np.zeros((0, 6, 5, 3), np.uint8)}, r"\[0, 6, 5, 3\]"),
        ({"images": np.zeros((12, 6, 6, 3), np.uint8)}, "one shape"),
        ({"labels": np.arange(12) / 2}, "float64"),
        ({"labels": np.arange(11)}, r"\[11\]"),
        ({"labels": np.arange(12) - 1}, "from -1"),
        ({"labels": np.full(12, 2**40)}, str(2**40)),
        ({"labels": np.full(12, 2**64 - 1, dtype=np.uint64)}, str(2**64 - 1)),
        ({"classes": np.array(["cat", "owl", "dog"])}, "same classes"),
        ({"images": np.array([{}] * 12)}, "pickle"),
        ({"classes": np.array([{}] * 3)}, "pickle"),
        ({"classes": np.array([b"cat", b"\xff", b"owl"])}, "UTF-8"),
        ({"images": np.zeros((12, 3, 6, 5), np.uint8)}, r"4 channels .*transpose\(0, 2, 3, 1\)"),
        ({"images": np.zeros((12, 1, 6, 5), np.uint8)}, r"4 channels .*transpose\(0, 2, 3, 1\)"),
        ({"images": np.zeros((12, 6, 5, 7), np.uint8)}, "4 channels .* convert"),
        ({"images": np.zeros((12, 6, 5, 3), np.int64)}, "int64"),
        ({"labels": np.zeros((12, 1), np.int64)}, r"\[12, 1\]"),
        ({"labels": np.zeros(12, np.bool_)}, "bool"),
        ({"classes": np.arange(3) / 2}, "classes must be text"),
        ({"classes": np.array([["cat", "dog", "owl"]])}, r"\[1, 3\]"),
    ],
)
def test_a_file_of_another_form_is_one_line(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    spec = write(tmp_path, **changed)
    with pytest.raises(DataError, match=message) as caught:
        load_source(spec)
    assert "train-small.npz" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("train", "test", "where"),
    [({"labels": np.arange(12) % 4}, {}, "training"), ({}, {"labels": np.arange(9) % 4}, "test")],
)
def test_a_label_without_a_class_is_refused_when_classes_are_left_out(
    tmp_path: Path, train: dict[str, Any], test: dict[str, Any], where: str
) -> None:
    spec = write(tmp_path, **train).model_copy(update={"exclude": ["cat"]})
    np.savez(tmp_path / "test.npz", **arrays(9, **test))
    with pytest.raises(DataError, match=rf"labels must be 0..2, but the {where} split of .* has 3; count classes"):
        load_source(spec)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["cat", "cat", "owl"], "class names must differ, but .* has 'cat' twice"),
        (["cat", "cat ", "owl"], "class names must differ"),
        (["caf\u00e9", "cafe\u0301", "owl"], "class names must differ"),
        (["cat", "", "owl"], "printable UTF-8 text, but .* has ''"),
        (["cat", "d\no\x1bg", "owl"], r"printable UTF-8 text, but .* has 'd\\no\\x1bg'"),
        (["cat", "owl"], "labels must be 0..1, but the training split of .* has 2"),
    ],
)
def test_class_names_must_tell_the_classes_apart(tmp_path: Path, classes: list[str], message: str) -> None:
    spec = write(tmp_path, classes=np.array(classes))
    np.savez(tmp_path / "test.npz", **arrays(9, classes=np.array(classes)))
    with pytest.raises(DataError, match=message) as caught:
        load_source(spec)
    assert str(caught.value).isprintable()


def test_class_names_of_any_language_and_length_are_kept(tmp_path: Path) -> None:
    classes = ["\u732b\u3000\u5927", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "x" * 255]
    spec = write(tmp_path, classes=np.array(classes))
    np.savez(tmp_path / "test.npz", **arrays(9, classes=None))
    assert load_source(spec).class_names == tuple(classes)


@pytest.mark.parametrize("keep", [0, 40, 0.5, 0.99])
def test_a_truncated_file_is_one_line(tmp_path: Path, keep: float) -> None:
    spec, file = write(tmp_path), tmp_path / "train-small.npz"
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(DataError, match="train-small.npz") as caught:
        load_source(spec)
    assert "\n" not in str(caught.value)


def test_flipped_bytes_are_one_line(tmp_path: Path) -> None:
    spec, file = write(tmp_path), tmp_path / "train-small.npz"
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 20] = bytes(20)
    file.write_bytes(content)
    with pytest.raises(DataError, match="train-small.npz"):
        load_source(spec)


def header(shape: str) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (b"no array", "its images is not an array"),
        (header("(1, 2"), "must be a complete npz"),
        (header(f"({2**50},)"), "must be a complete npz"),
    ],
    ids=["text", "broken header", "huge shape"],
)
def test_a_member_that_is_no_array_is_one_line(tmp_path: Path, member: bytes, message: str) -> None:
    spec = write(tmp_path, images=None)
    with zipfile.ZipFile(tmp_path / "train-small.npz", "a") as archive:
        archive.writestr("images.npy", member)
    with pytest.raises(DataError, match=message) as caught:
        load_source(spec)
    assert "train-small.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_an_array_that_unpacks_to_more_than_the_memory_is_not_read(tmp_path: Path) -> None:
    spec = write(tmp_path, images=None)
    with zipfile.ZipFile(tmp_path / "train-small.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header(f"({2**40},)") + bytes(1000))
        archive.filelist[-1].file_size = 2**40 + len(header(f"({2**40},)"))  # as the directory at its end says
    with pytest.raises(DataError, match="train-small.npz, unpacked, must fit into half of the free memory"):
        load_source(spec)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<!DOCTYPE html>", "it is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-LFS"),
        (b"", "it is empty"),
    ],
)
def test_other_content_is_called_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    spec = write(tmp_path)
    (tmp_path / "test.npz").write_bytes(content)
    with pytest.raises(DataError, match=f"test.npz .*{reason}"):
        load_source(spec)


def test_a_folder_without_permission_is_not_called_empty() -> None:
    with shared_folder() as folder:
        spec = write(folder)
        folder.chmod(0o311)
        with unprivileged(), pytest.raises(DataError, match=f"cannot read {folder}: Permission denied"):
            load_source(spec)
        folder.chmod(0o700)
        with unprivileged(), pytest.raises(DataError, match=f"cannot read {folder}.*: Permission denied"):
            load_source(DataSpec(source="cifar-10", path=str(folder)))


def test_class_names_may_be_bytes(tmp_path: Path) -> None:
    spec = write(tmp_path, classes=np.array(["Käse".encode(), b"dog", b"owl"]))
    np.savez(tmp_path / "test.npz", **arrays(9, classes=None))
    assert load_source(spec).class_names == ("Käse", "dog", "owl")


def test_something_else_under_the_name_is_one_line(tmp_path: Path) -> None:
    spec = write(tmp_path)
    with open(tmp_path / "train-small.npz", "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="train-small.npz"):
        load_source(spec)


def test_the_folder_must_be_given_be_there_and_have_one_file_of_each_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data.path is missing"):
        load_source(DataSpec(source="npz"))
    with pytest.raises(DataError, match="absent is not a folder"):
        load_source(DataSpec(source="npz", path=str(tmp_path / "absent")))
    spec = write(tmp_path)
    (tmp_path / "train-b.npz").touch()
    with pytest.raises(DataError, match="train-b.npz, train-small.npz"):
        load_source(spec)
    for file in tmp_path.glob("train*"):
        file.unlink()
    with pytest.raises(DataError, match="has: none"):
        load_source(spec)


def test_the_digest_depends_on_the_contents_not_on_the_path(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = write(tmp_path / "one"), write(tmp_path / "two")
    assert source_digest(one) == source_digest(two)
    images = arrays()["images"]
    images[3, 2, 1, 0] ^= 1
    write(tmp_path / "two", images=images)
    assert source_digest(one) != source_digest(two)
