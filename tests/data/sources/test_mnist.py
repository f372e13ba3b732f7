import gzip
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gitdist.data.sources import load_source
from gitdist.data.sources.mnist import FASHION_MNIST
from gitdist.errors import DataError
from gitdist.spec import DataSpec

INSTALLED = Path("/usr/share/datasets/fashion-mnist")
TRAIN_IMAGES = "train-images-idx3-ubyte.gz"


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_folder(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 30), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        (folder / f"{split}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{split}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder


@pytest.mark.skipif(not INSTALLED.is_dir(), reason=f"Fashion-MNIST is not installed in {INSTALLED}")
def test_the_official_files_hold_70000_images_in_balanced_classes() -> None:
    source = load_source(DataSpec(source="fashion-mnist", path=str(INSTALLED)))
    assert (source.train_images.shape, source.test_images.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert np.bincount(source.train_labels).tolist() == [6000] * 10
    assert np.bincount(source.test_labels).tolist() == [1000] * 10
    assert source.class_names[source.train_labels[0]] == "Ankle boot"


def test_values_come_back_as_they_were_written(tmp_path: Path) -> None:
    source = load_source(DataSpec(source="fashion-mnist", path=str(write_folder(tmp_path))))
    expected = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(source.train_images[:, 0], expected)
    assert source.test_labels.tolist() == list(range(10))


def test_the_folder_of_the_environment_comes_before_the_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "fashion-mnist")
    monkeypatch.setenv("GITDIST_DATA", str(tmp_path))
    assert all(file.parent == folder for file in FASHION_MNIST.find(DataSpec()))


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def flip_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def no_deflate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:10] + b"\xff" * 50)


def plain(file: Path) -> None:
    file.write_bytes(b"not gzip")


def wrong_magic(file: Path) -> None:
    file.write_bytes(gzip.compress(b"\0\0\x0d\x03" + bytes(12)))


def empty(file: Path) -> None:
    file.write_bytes(gzip.compress(b""))


def short_values(file: Path) -> None:
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-1]))


def wrong_shape(file: Path) -> None:
    file.write_bytes(gzip.compress(idx(np.zeros((30, 28, 27), dtype=np.uint8))))


def fewer_images(file: Path) -> None:
    file.write_bytes(gzip.compress(idx(np.zeros((29, 28, 28), dtype=np.uint8))))


@pytest.mark.parametrize(
    "damage",
    [cut_short, flip_byte, no_deflate, plain, wrong_magic, empty, short_values, wrong_shape, fewer_images, Path.unlink],
)
def test_a_bad_file_is_one_line_that_names_it(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    file = write_folder(tmp_path) / TRAIN_IMAGES
    damage(file)
    with pytest.raises(DataError, match=TRAIN_IMAGES) as caught:
        load_source(DataSpec(source="fashion-mnist", path=str(tmp_path)))
    assert "\n" not in str(caught.value)


NOT_INSTALLED = replace(FASHION_MNIST, system_folder=None)


def test_a_failed_download_names_the_package_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request._opener", None)  # else the one with these proxies serves all later tests
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("GITDIST_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DataError, match="dataset-fashion-mnist") as caught:
        NOT_INSTALLED.find(DataSpec())
    assert "\n" not in str(caught.value)


def test_a_finished_download_is_used_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITDIST_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / ".cache" / "gitdist" / "FashionMNIST" / "raw")
    assert len(NOT_INSTALLED.read(NOT_INSTALLED.find(DataSpec()), DataSpec()).train_labels) == 30


def test_kuzushiji_mnist_is_read_from_the_idx_files(tmp_path: Path) -> None:
    source = load_source(DataSpec(source="kuzushiji-mnist", path=str(write_folder(tmp_path))))
    assert (source.name, source.class_names[3]) == ("kuzushiji-mnist", "tsu")
    assert source.train_images.shape == (30, 1, 28, 28)
