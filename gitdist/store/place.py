"""Files under a root, local or on an object store, by four verbs that all of them have: write, list, read, delete."""

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

import pyarrow as pa
from pyarrow import fs

from gitdist.address import without_secrets
from gitdist.errors import StoreError, first_line

_CHUNK_BYTES = 8 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0  # between two tries of what a place refuses

T = TypeVar("T")


@dataclass(frozen=True)
class Purpose:
    """What a place is for, in words for the user: what to call it, where it was named, and the remedy."""

    what: str
    named: str
    remedy: str


SHARED = Purpose("the shared store", "store.uri", "correct store.uri or leave it out")


class Stamp(NamedTuple):
    """A file's size in bytes, and when it was last written, in nanoseconds since 1970."""

    num_bytes: int
    mtime_ns: int


class Place:
    """Files under one root. Names are relative to it, with ``/`` between directories.

    A local place lets the disk's errors pass; every other one turns them into a StoreError that names it.
    """

    def __init__(
        self, files: fs.FileSystem, root: str, trouble: Callable[[str], str] | None = None, patience_s: float = 0.0
    ) -> None:
        """Take the files of ``files`` below ``root``.

        Args:
            files: where they are.
            root: the directory.
            trouble: makes the message for the user of what went wrong; None = errors pass.
            patience_s: for so long, in seconds, what is refused is tried again; but once only, until it is done again.
        """
        self._files, self._root, self._trouble, self._patience_s = files, root, trouble, patience_s
        self._is_lost = False

    @classmethod
    def local(cls, root: Path) -> "Place":
        """Return the place that is a local directory."""
        return cls(fs.LocalFileSystem(), str(root))

    @classmethod
    def of_uri(cls, uri: str, purpose: Purpose = SHARED, *, patience_s: float = 0.0) -> "Place":
        """Return the place that a URI or a path names, created in its parent where it is missing.

        Args:
            uri: such as ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``file:///path`` or a path.
            purpose: what it is for.
            patience_s: as for ``Place``, once the place has answered for a first time.

        Raises:
            StoreError: it cannot be reached, written, read or deleted from.
        """
        shown = without_secrets(uri)
        try:
            files, root = fs.FileSystem.from_uri(uri if "://" in uri else str(Path(uri).expanduser().absolute()))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise StoreError(
                f"{purpose.what} must be a path or a URI such as s3://bucket/prefix, but {purpose.named} is '{shown}' "
                f"({without_secrets(first_line(error))}); {purpose.remedy}"
            ) from None

        def trouble(told: str) -> str:
            return (
                f"{purpose.what} {shown} must be reachable and writable, but it is not ({told}); mend that, or "
                f"{purpose.remedy}, then run the same command again"
            )

        cls(files, root.rstrip("/"), trouble)._probe()
        return cls(files, root.rstrip("/"), trouble, patience_s)

    def write(self, name: str, content: bytes) -> None:
        """Write a small file; on a local disk and on an object store a reader sees the old content or the new one.

        A signal waits until one try is over: a stream that it broke into would be closed, which makes the object.
        """
        if not isinstance(self._files, fs.LocalFileSystem):
            self._patiently(lambda: _uninterrupted(lambda: self._write(name, [content])))
            return
        temporary = str(PurePosixPath(name).with_name(f".{secrets.token_hex(8)}.tmp"))
        self.write_chunks(temporary, lambda: [content])
        with self._told():
            self._files.move(self._path(temporary), self._path(name))

    def write_chunks(self, name: str, chunks: Callable[[], Iterable[bytes]]) -> None:
        """Write a file piece by piece, from the first piece at each try; directories below the root are made.

        What breaks off in the middle leaves a file that ends there.
        """
        self._patiently(lambda: self._write(name, chunks()))

    def names(self, directory: str) -> list[str]:
        """Return the names of the files right in a directory (``""``: the root); none where there is no directory."""
        return list(self._list(directory, recursive=False))

    def files(self, directory: str) -> dict[str, Stamp]:
        """Return the files in a directory and below it, by their names relative to it; none without the directory."""
        return self._list(directory, recursive=True)

    def read(self, name: str) -> bytes | None:
        """Return a small file's content; None where there is no such file."""
        found: list[bytes] = []

        def start() -> Callable[[bytes], object]:
            found.clear()
            return found.append

        try:
            self._read_into(name, start)
        except FileNotFoundError:
            return None
        return b"".join(found)

    def copy(self, name: str, target: Path) -> None:
        """Write a file's content to a local file.

        Raises:
            FileNotFoundError: there is no such file.
        """
        with open(target, "wb") as file:

            def start() -> Callable[[bytes], object]:
                file.seek(0)
                file.truncate()
                return file.write

            self._read_into(name, start)

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""

        def act() -> None:
            with suppress(FileNotFoundError), self._told(FileNotFoundError):
                self._files.delete_file(self._path(name))

        self._patiently(act)

    def _list(self, directory: str, *, recursive: bool) -> dict[str, Stamp]:
        root = self._path(directory)
        selector = fs.FileSelector(root, allow_not_found=True, recursive=recursive)

        def act() -> dict[str, Stamp]:
            with self._told():
                try:
                    infos = self._files.get_file_info(selector)
                except FileNotFoundError:  # the directory came, or one below it went, while it was being listed
                    infos = self._files.get_file_info(selector)
            found = [info for info in infos if info.type == fs.FileType.File]
            return {info.path.removeprefix(f"{root}/"): Stamp(info.size, info.mtime_ns) for info in found}

        return self._patiently(act)

    def _read_into(self, name: str, start: Callable[[], Callable[[bytes], object]]) -> None:
        """Hand a file's content piece by piece to what ``start`` returns; a new try starts anew."""

        def act() -> None:
            take = start()
            # Else a name that ends in .gz would be unpacked.
            with self._told(FileNotFoundError), self._files.open_input_stream(self._path(name), None) as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    take(chunk)

        self._patiently(act)

    def _patiently(self, act: Callable[[], T]) -> T:
        until, pause_s = time.monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            try:
                done = act()
            except StoreError:
                if self._is_lost or time.monotonic() + pause_s > until:
                    self._is_lost = True
                    raise
            else:
                self._is_lost = False
                return done
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _write(self, name: str, chunks: Iterable[bytes]) -> None:
        with self._told(), self._opened_for_writing(name) as stream:
            for chunk in chunks:
                stream.write(chunk)

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
            if self._trouble is None or (passing and isinstance(error, passing)):
                raise
            raise StoreError(self._trouble(first_line(error))) from error


def _uninterrupted(act: Callable[[], None]) -> None:
    """Do what no signal may break into; Python hands signals to the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        act()
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result()
