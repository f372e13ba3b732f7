"""An S3 server of the tests' own, on loopback."""

import logging
import socket
from types import TracebackType
from typing import Any

import pytest

BUCKET = "bucket"


class ObjectStore:
    """moto's S3 server, which keeps its objects while it is stopped; the test is skipped where it is not installed."""

    def __init__(self) -> None:
        self._server: Any = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"s3://{BUCKET}/results"
        self.environment = {
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "hidden-word",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self) -> "ObjectStore":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        server = pytest.importorskip("moto.server")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = server.ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None

    def make_bucket(self) -> None:
        from pyarrow import fs

        files, _ = fs.FileSystem.from_uri(f"s3://{BUCKET}?allow_bucket_creation=true")
        files.create_dir(BUCKET)
        files.delete_dir_contents(BUCKET)  # what another test of this process left

    def write(self, name: str, content: bytes) -> None:
        """Write an object of the results."""
        from gitdist.store.file_tree import FileTree

        FileTree.of_uri(self.uri).write(name, content)

    def names(self, directory: str = "") -> list[str]:
        """The objects below a directory of the results, by their names relative to it."""
        from gitdist.store.file_tree import FileTree

        return sorted(FileTree.of_uri(self.uri).files(directory))
