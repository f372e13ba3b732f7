"""CIFAR, from small files of the official format."""

import os
import pickle
import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitdist.data.sources import load_source
from gitdist.errors import DataError
from gitdist.spec import DataSpec


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes text and bytes as Python 2 wrote its strings, of which the official batches consist."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, text: str | bytes) -> None:
        content = text.encode("latin1") if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)

    dispatch[str] = dispatch[bytes] = save_string


def write_pickle(file: Path, content: Any) -> None:
    stream = BytesIO()
    Python2Pickler(stream, protocol=2).dump(content)
    file.write_bytes(stream.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def batch(seed: int, count: int, key: str, **changed: Any) -> dict[str, Any]:
    data = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": data, key: [(seed + index) % 10 for index in range(count)], "batch_label": "some"} | changed


def write_cifar_10(folder: Path, **changed: Any) -> DataSpec:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, 6):
        write_pickle(folder / f"data_batch_{number}", batch(number, 4, "labels", **(changed if number == 3 else {})))
    write_pickle(folder / "test_batch", batch(6, 10, "labels"))
    write_pickle(folder / "batches.meta", {"label_names": [f"name {label}" for label in range(10)]})
    return DataSpec(source="cifar-10", path=str(folder))


def test_cifar_10_is_its_batches_in_official_order(tmp_path: Path) -> None:
    source = load_source(write_cifar_10(tmp_path))
    expected = np.concatenate([batch(number, 4, "labels")["data"] for number in range(1, 6)])
    np.testing.assert_array_equal(source.train_images.reshape(20, 3072), expected)
    assert source.train_labels.tolist() == [(number + index) % 10 for number in range(1, 6) for index in range(4)]
    assert source.test_images.shape == (10, 3, 32, 32)
    assert source.class_names[9] == "name 9"


def test_cifar_100_takes_the_fine_labels(tmp_path: Path) -> None:
    for name, count in (("train", 7), ("test", 5)):
        write_pickle(tmp_path / name, batch(count, count, "fine_labels", coarse_labels=[0] * count))
    write_pickle(tmp_path / "meta", {"fine_label_names": list("abcdefghij"), "coarse_label_names": ["c"]})
    source = load_source(DataSpec(source="cifar-100", path=str(tmp_path)))
    assert source.train_labels.tolist() == [(7 + index) % 10 for index in range(7)]
    assert source.class_names == tuple("abcdefghij")


class Program:
    def __reduce__(self) -> Any:
        return os.getcwd, ()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"filenames": [Program()]}, "it asks for posix.getcwd"),
        ({"data": np.zeros((4, 3071), np.uint8)}, r"uint8 \[4, 3071\]"),
        ({"data": [0]}, "has none"),
        ({"labels": [1, 2, 3]}, "4 integers 'labels'"),
        ({"labels": [1, 2, 3, "4"]}, "4 integers 'labels'"),
        ({"labels": [1, 2, 3, 2**70]}, "4 integers 'labels'"),
        ({"labels": [1, 2, 3, -1]}, "4 integers 'labels'"),
    ],
)
def test_a_batch_of_another_form_is_one_line_and_never_a_program(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=f"data_batch_3.*{message}|{message}.*data_batch_3") as caught:
        load_source(write_cifar_10(tmp_path, **changed))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 5, 400, 9000])
def test_a_truncated_batch_is_one_line(tmp_path: Path, keep: int) -> None:
    spec, file = write_cifar_10(tmp_path), tmp_path / "data_batch_2"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match="data_batch_2.*download the python version again"):
        load_source(spec)


@pytest.mark.timeout(20)
def test_a_few_bytes_that_make_the_unpickler_allocate_memory_without_end_are_refused(tmp_path: Path) -> None:
    spec = write_cifar_10(tmp_path)
    (tmp_path / "data_batch_2").write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")
    with pytest.raises(DataError, match="data_batch_2 .*slot 4294967295 .*download the python version again"):
        load_source(spec)
