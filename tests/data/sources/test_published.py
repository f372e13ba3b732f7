"""The published sources, from small files of the official form."""

import os
import pickle
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gitdist.data.sources import gtsrb, kuzushiji_49, list_sources, load_source
from gitdist.data.sources.place import fetch
from gitdist.data.splits import split_rows
from gitdist.errors import DataError
from gitdist.spec import DataSpec, ProfileSpec
from tests.data.sources.test_fashion_mnist import write_folder


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


def test_every_source_is_listed_with_its_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITDIST_DATA", str(tmp_path))
    write_cifar_10(tmp_path / "cifar-10")
    places = list_sources()
    assert set(places) == set(DataSpec.model_fields["source"].annotation.__args__)  # type: ignore[union-attr]
    assert places["cifar-10"] == str(tmp_path / "cifar-10")
    assert "GTSRB/ and GT-final_test.csv" in places["gtsrb"]


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
    write_pickle(tmp_path / "meta", {"fine_label_names": ["a", "b"], "coarse_label_names": ["c"]})
    source = load_source(DataSpec(source="cifar-100", path=str(tmp_path)))
    assert source.train_labels.tolist() == [(7 + index) % 10 for index in range(7)]
    assert source.class_names == ("a", "b")


class Program:
    def __reduce__(self) -> Any:
        return os.getcwd, ()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"filenames": [Program()]}, "it asks for posix.getcwd"),
        ({"data": np.zeros((4, 3071), np.uint8)}, r"uint8 \[4, 3071\]"),
        ({"data": [0]}, "has none"),
        ({"labels": [1, 2, 3]}, "4 whole numbers 'labels'"),
        ({"labels": [1, 2, 3, "4"]}, "4 whole numbers 'labels'"),
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
    with pytest.raises(DataError, match="data_batch_2.*get the python version anew"):
        load_source(spec)


def write_k49(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for split, count in (("train", 98), ("test", 49)):
        np.savez_compressed(folder / f"k49-{split}-imgs.npz", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        np.savez_compressed(folder / f"k49-{split}-labels.npz", np.arange(count, dtype=np.uint8) % 49)
    return list(kuzushiji_49.PLACE.find(str(folder)))


def test_a_file_that_is_not_whole_has_no_name_yet(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"content")
    fetch((tmp_path / "there").as_uri(), tmp_path / "new" / "here")
    assert (tmp_path / "new" / "here").read_bytes() == b"content"
    with pytest.raises(OSError):
        fetch((tmp_path / "absent").as_uri(), tmp_path / "new" / "other")
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["here"]


class Download(BaseHTTPRequestHandler):
    """Sends 200 bytes: to /both once two ask, of /short the half only, of /silent the half and then nothing."""

    both = threading.Barrier(2)
    over = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/chunks":
            self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        if self.path == "/chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"64\r\n" + bytes(50))
            return
        self.send_header("Content-Length", "200")
        self.end_headers()
        self.wfile.write(bytes(100))
        if self.path == "/both":
            self.both.wait(20)
        if self.path == "/silent":
            self.over.wait(20)
        if self.path != "/short":
            self.wfile.write(bytes(100))

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Download.over.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Download) as running:
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        Download.over.set()
        running.shutdown()


def test_two_downloads_of_a_file_do_not_disturb_each_other(tmp_path: Path, server: str) -> None:
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(fetch, f"{server}/both", tmp_path / "file") for _ in range(2)]:
            done.result()
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == bytes(200)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("short", "100 of 200 bytes came from http"),
        ("silent", "timed out"),
        ("chunks", "IncompleteRead"),
        ("whole", f"must have the md5 {'0' * 32}, but what came has [0-9a-f]{{32}}"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    monkeypatch.setattr("gitdist.data.sources.place._SILENCE_S", 0.5)
    monkeypatch.setattr("gitdist.data.sources.place._CACHE", tmp_path)
    place = replace(
        kuzushiji_49.PLACE, download=lambda cache: fetch(f"{server}/{path}", cache / "k49" / "file", "0" * 32)
    )
    with pytest.raises(DataError, match=message) as caught:
        place.find(None)
    assert "\n" not in str(caught.value) and not list((tmp_path / "k49").iterdir())


def test_kuzushiji_49_has_49_classes_in_the_order_of_the_files(tmp_path: Path) -> None:
    source = kuzushiji_49.read(write_k49(tmp_path), md5={})
    with np.load(tmp_path / "k49-train-imgs.npz") as archive:
        np.testing.assert_array_equal(source.train_images[:, 0], archive["arr_0"])
    assert source.train_labels.tolist() == [*range(49), *range(49)]
    assert len(set(source.class_names)) == 49
    assert [source.class_names[label] for label in (0, 7, 28, 37, 47)] == ["a", "ku", "he", "yo", "n"]


def test_files_that_are_not_the_official_ones_are_refused_with_both_sums(tmp_path: Path) -> None:
    write_k49(tmp_path)
    with pytest.raises(DataError, match="k49-train-imgs.npz must have the md5 7ac088b20481.*, but it has [0-9a-f]{32}"):
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
    with pytest.raises(DataError, match=f"k49-train-imgs.npz has .*{message}"):
        kuzushiji_49.read(files, md5={})


def test_kuzushiji_mnist_is_read_from_the_idx_files(tmp_path: Path) -> None:
    source = load_source(DataSpec(source="kuzushiji-mnist", path=str(write_folder(tmp_path))))
    assert (source.name, source.class_names[3]) == ("kuzushiji-mnist", "tsu")
    assert source.train_images.shape == (30, 1, 28, 28)


def write_gtsrb(folder: Path, tracks: int = 1, frames: int = 2) -> DataSpec:
    rng, head = np.random.default_rng(0), "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    test_folder = folder / "GTSRB" / "Final_Test" / "Images"
    test_folder.mkdir(parents=True)
    test_rows = []
    for label in range(43):
        train_folder = folder / "GTSRB" / "Training" / f"{label:05d}"
        train_folder.mkdir(parents=True)
        rows = []
        for track, index in product(range(tracks), range(frames)):
            pixels = rng.integers(0, 256, (20 + label, 25, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(train_folder / f"{track:05d}_{index:05d}.ppm")
            rows.append(f"{track:05d}_{index:05d}.ppm;25;{20 + label};5;5;20;15;{label}")
        (train_folder / f"GT-{label:05d}.csv").write_text("\r\n".join([head, *rows]) + "\r\n")
        Image.fromarray(np.full((32, 32, 3), label, np.uint8)).save(test_folder / f"{42 - label:05d}.ppm")
        test_rows.append(f"{42 - label:05d}.ppm;32;32;5;5;20;15;{label}")
    (folder / "GT-final_test.csv").write_text("\r\n".join([head, *reversed(test_rows)]) + "\r\n")
    return DataSpec(source="gtsrb", path=str(folder))


def test_gtsrb_is_the_whole_images_of_the_tables_resized(tmp_path: Path) -> None:
    source = load_source(write_gtsrb(tmp_path))
    assert source.train_labels.tolist() == [label for label in range(43) for _ in range(2)]
    assert source.test_labels.tolist() == list(range(42, -1, -1))
    assert source.test_images[:, 0, 5, 5].tolist() == list(range(42, -1, -1))
    with Image.open(tmp_path / "GTSRB/Training/00007/00000_00001.ppm") as image:
        expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(source.train_images[15].transpose(1, 2, 0), expected)
    assert len(set(source.class_names)) == 43 and source.class_names[14] == "stop"


def test_frames_of_one_track_of_gtsrb_never_lie_in_two_splits(tmp_path: Path) -> None:
    spec = write_gtsrb(tmp_path, tracks=6, frames=4)
    source = load_source(spec)
    assert source.train_groups is not None and len(source.group_names) == 43 * 6
    rows = split_rows(source, spec.model_copy(update={"profile": ProfileSpec(kind="power", largest=12, smallest=5)}))
    train, validation = source.train_groups[rows.train], source.train_groups[rows.validation]
    assert not np.intersect1d(train, validation).size
    assert np.bincount(source.train_labels[rows.train]).tolist() == [12, *[5] * 42]
    assert {len(np.unique(train[source.train_labels[rows.train] == label])) for label in range(43)} == {5}
    assert load_source(spec.model_copy(update={"group": "none"})).train_groups is None


def test_a_training_image_of_gtsrb_without_a_track_is_one_line(tmp_path: Path) -> None:
    spec = write_gtsrb(tmp_path)
    table = tmp_path / "GTSRB/Training/00003/GT-00003.csv"
    table.write_text(table.read_text().replace("00000_00001", "00001"))
    with pytest.raises(DataError, match="TRACK_FRAME.ppm, but there is .*00003/00001.ppm"):
        load_source(spec)


@pytest.mark.parametrize("name", ["GT-final_test.csv", "GTSRB/Training/00003/GT-00003.csv"])
def test_a_damaged_table_is_one_line(tmp_path: Path, name: str) -> None:
    spec = write_gtsrb(tmp_path)
    (tmp_path / name).write_text("Filename;Class\n00000_00000.ppm;3\n")
    with pytest.raises(DataError, match=f"{name} has not") as caught:
        load_source(spec)
    assert "\n" not in str(caught.value)


def test_a_missing_image_of_a_table_is_one_line(tmp_path: Path) -> None:
    spec = write_gtsrb(tmp_path)
    (tmp_path / "GTSRB/Training/00042/00000_00000.ppm").unlink()
    with pytest.raises(DataError, match="00042/00000_00000.ppm is not"):
        load_source(spec)
    assert len(gtsrb.PLACE.find(str(tmp_path))) == 44
