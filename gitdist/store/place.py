"""Files under a root, local or on an object store, by four verbs that all of them have: write, list, read, delete."""

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from gitdist.errors import StoreError, first_line

_CHUNK_BYTES = 8 << 20


class Place:
    """Files under one root. Names are relative to it, with ``/`` between directories.

    A local place lets the disk's errors pass; every other one turns them into a StoreError that names it.
    """

    def __init__(self, files: fs.FileSystem, root: str, shown: str | None = None) -> None:
        """Take the files of ``files`` below ``root``; ``shown`` is what to call the place in a message."""
        self._files, self._root, self._shown = files, root, shown

    @classmethod
    def local(cls, root: Path) -> "Place":
        """Return the place that is a local directory."""
        return cls(fs.LocalFileSystem(), str(root))

    @classmethod
    def of_uri(cls, uri: str) -> "Place":
        """Return the place that a URI or a path names, created in its parent where it is missing.

        Args:
            uri: such as ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``file:///path`` or a path.

        Raises:
            StoreError: it cannot be reached, written, read or deleted from.
        """
        shown = without_secrets(uri)
        try:
            files, root = fs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).expanduser().absolute()))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise StoreError(
                f"a shared store must be a path or a URI such as s3://bucket/prefix, but store.uri is '{shown}' "
                f"({first_line(error).replace(uri, shown)}); correct it or leave it out"
            ) from None
        place = cls(files, root.rstrip("/"), shown)
        place._probe()
        return place

    def write(self, name: str, content: bytes) -> None:
        """Write a small file; on a local disk and on an object store a reader sees the old content or the new one."""
        if not isinstance(self._files, fs.LocalFileSystem):
            self.write_chunks(name, [content])
            return
        temporary = str(PurePosixPath(name).with_name(f".{secrets.token_hex(8)}.tmp"))
        self.write_chunks(temporary, [content])
        with self._told():
            self._files.move(self._path(temporary), self._path(name))

    def write_chunks(self, name: str, chunks: Iterable[bytes]) -> None:
        """Write a file piece by piece; directories that are missing below the root are made."""
        with self._told(), self._opened_for_writing(name) as stream:
            for chunk in chunks:
                stream.write(chunk)

    def names(self, directory: str) -> list[str]:
        """Return the names of the files right in a directory (``""``: the root); none where there is no directory."""
        selector = fs.FileSelector(self._path(directory), allow_not_found=True)
        with self._told():
            return [info.base_name for info in self._files.get_file_info(selector) if info.type == fs.FileType.File]

    def read(self, name: str) -> bytes | None:
        """Return a small file's content; None where there is no such file."""
        try:
            return b"".join(self.read_chunks(name))
        except FileNotFoundError:
            return None

    def read_chunks(self, name: str) -> Iterator[bytes]:
        """Yield a file's content piece by piece.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with self._told(FileNotFoundError), self._files.open_input_stream(self._path(name)) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        with suppress(FileNotFoundError), self._told(FileNotFoundError):
            self._files.delete_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _opened_for_writing(self, name: str) -> pa.NativeFile:
        try:
            return self._files.open_output_stream(self._path(name))
        except FileNotFoundError:
            # Not the root: the directory below a disk that is no longer mounted must not take its place.
            for parent in reversed(PurePosixPath(name).parents[:-1]):
                self._files.create_dir(self._path(str(parent)), recursive=False)
            return self._files.open_output_stream(self._path(name))

    def _probe(self) -> None:
        name = f"probe.{secrets.token_hex(8)}"
        try:
            with self._told(FileNotFoundError):
                self._files.open_output_stream(self._path(name)).close()
        except FileNotFoundError:
            with self._told():
                self._files.create_dir(self._root, recursive=False)
            self.write(name, b"")
        self.delete(name)

    @contextmanager
    def _told(self, passing: type[OSError] | None = None) -> Iterator[None]:
        """Name the place in every error except ``passing``."""
        try:
            yield
        except (OSError, pa.ArrowException) as error:
            if self._shown is None or (passing and isinstance(error, passing)):
                raise
            raise StoreError(
                f"the shared store {self._shown} must be reachable and writable, but it is not ({first_line(error)}); "
                "mend that, or correct store.uri or leave it out, then run the same command again"
            ) from error


def without_secrets(uri: str) -> str:
    """Return a URI without the credentials and options that it may hold."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if "://" in uri else uri
