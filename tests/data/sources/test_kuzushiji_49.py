"""Kuzushiji-49, from small files of the official format."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gitdist.data.sources import load_source
from gitdist.data.sources.base import SourceImages
from gitdist.data.sources.kuzushiji_49 import KUZUSHIJI_49
from gitdist.errors import DataError
from gitdist.spec import DataSpec


def write_k49(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for split, count in (("train", 98), ("test", 49)):
        np.savez_compressed(folder / f"k49-{split}-imgs.npz", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        np.savez_compressed(folder / f"k49-{split}-labels.npz", np.arange(count, dtype=np.uint8) % 49)
    return list(KUZUSHIJI_49.find(DataSpec(path=str(folder))))


def read_unofficial(files: list[Path]) -> SourceImages:
    return replace(KUZUSHIJI_49, md5={}).read(files, DataSpec())


def test_kuzushiji_49_has_49_classes_in_the_order_of_the_files(tmp_path: Path) -> None:
    source = read_unofficial(write_k49(tmp_path))
    with np.load(tmp_path / "k49-train-imgs.npz") as archive:
        np.testing.assert_array_equal(source.train_images[:, 0], archive["arr_0"])
    assert source.train_labels.tolist() == [*range(49), *range(49)]
    assert len(set(source.class_names)) == 49
    assert [source.class_names[label] for label in (0, 7, 28, 37, 47)] == ["a", "ku", "he", "yo", "n"]


def test_files_that_are_not_the_official_ones_are_refused_with_both_sums(tmp_path: Path) -> None:
    write_k49(tmp_path)
    with pytest.raises(DataError, match="k49-train-imgs.npz must have the md5 7ac088b20481.*, but has [0-9a-f]{32}"):
        load_source(DataSpec(source="kuzushiji-49", path=str(tmp_path)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((98, 28, 27), np.uint8), r"\[98, 28, 27\]"),
        (np.zeros((97, 28, 28), np.uint8), r"\[97, 28, 28\]"),
        (np.zeros((98, 28, 28)), "arr_0 of float64"),
    ],
)
def test_a_kuzushiji_49_file_of_another_form_is_one_line(tmp_path: Path, array: np.ndarray, message: str) -> None:
    files = write_k49(tmp_path)
    np.savez(files[0], array)
    with pytest.raises(DataError, match=f"k49-train-imgs.npz must have .*{message}"):
        read_unofficial(files)
