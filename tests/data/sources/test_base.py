"""The table of sources, and what all sources share: standard folders and downloads."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from gitdist.data.dataset import prepare
from gitdist.data.sources import SOURCES, load_source, source_locations
from gitdist.data.sources.base import DataSource, SourceImages, download_file
from gitdist.data.sources.kuzushiji_49 import KUZUSHIJI_49
from gitdist.errors import DataError, SpecError
from gitdist.spec import DataSpec
from gitdist.store import Store
from tests.data.sources.test_cifar import write_cifar_10


def test_every_source_is_listed_with_its_location(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GITDIST_DATA", str(tmp_path))
    write_cifar_10(tmp_path / "cifar-10")
    locations = source_locations()
    assert locations["cifar-10"] == str(tmp_path / "cifar-10")
    assert "GTSRB/ and GT-final_test.csv" in locations["gtsrb"]


def test_the_table_has_the_names_that_a_study_file_may_use() -> None:
    assert tuple(SOURCES) == get_args(DataSpec.model_fields["source"].annotation)


class Stripes(DataSource):
    """A data set of two classes without files."""

    def find(self, spec: DataSpec) -> Sequence[Path]:
        return ()

    def location(self) -> str:
        return "in memory"

    def read(self, files: Sequence[Path], spec: DataSpec) -> SourceImages:
        labels = np.arange(60) % 2
        images = np.random.default_rng(0).integers(0, 9, (60, 1, 4, 4), dtype=np.uint8)
        images[labels == 1, :, ::2] = 200
        return SourceImages(
            name="stripes",
            train_images=images[:40],
            train_labels=labels[:40],
            test_images=images[40:],
            test_labels=labels[40:],
            class_names=("plain", "striped"),
        )


def test_a_new_source_is_a_line_in_the_table(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = DataSpec(nuisance="background").model_copy(update={"source": "stripes"})
    with pytest.raises(SpecError, match="data.source: unknown source 'stripes'; known: cifar-10"):
        prepare(spec, Store(tmp_path))
    monkeypatch.setitem(SOURCES, "stripes", Stripes())
    dataset = prepare(spec, Store(tmp_path))
    assert dataset.class_names == ("plain", "striped") and dataset.class_sizes.tolist() == [16, 16]
    assert source_locations()["stripes"] == "in memory"
    assert load_source(spec.model_copy(update={"exclude": ("plain",)})).class_names == ("striped",)


def test_a_file_that_is_not_whole_has_no_name_yet(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"content")
    download_file((tmp_path / "there").as_uri(), tmp_path / "new" / "here")
    assert (tmp_path / "new" / "here").read_bytes() == b"content"
    with pytest.raises(OSError):
        download_file((tmp_path / "absent").as_uri(), tmp_path / "new" / "other")
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
        for done in [pool.submit(download_file, f"{server}/both", tmp_path / "file") for _ in range(2)]:
            done.result()
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == bytes(200)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("short", "received 100 of 200 bytes from http"),
        ("silent", "timed out"),
        ("chunks", "IncompleteRead"),
        ("whole", f"must have the md5 {'0' * 32}, but the download has [0-9a-f]{{32}}"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(
    tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch, path: str, message: str
) -> None:
    monkeypatch.setattr("gitdist.data.sources.base._TIMEOUT_S", 0.5)
    monkeypatch.setattr("gitdist.data.sources.base._CACHE", tmp_path)
    monkeypatch.setattr("gitdist.data.sources.kuzushiji_49._URL", server)
    source = replace(KUZUSHIJI_49, files=(path,), md5={path: "0" * 32})
    with pytest.raises(DataError, match=message) as caught:
        source.find(DataSpec())
    assert "\n" not in str(caught.value) and not list((tmp_path / "kuzushiji-49").iterdir())
