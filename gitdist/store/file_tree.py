"""Files below one root, local or on an object store, by the operations that both have: write, list, read, delete."""

import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, TypeVar

from gitdist.address import without_secrets
from gitdist.errors import StoreError, first_line
from gitdist.input_file import expand_home
from gitdist.outage import Outage
from gitdist.store.artifact import FileStamp

if TYPE_CHECKING:  # slow to import, and most commands use no tree
    import pyarrow as pa
    from pyarrow import fs

_CHUNK_BYTES = 8 << 20

_NO_COMPRESSION = None  # else pyarrow packs and unpacks files whose names end in .gz

T = TypeVar("T")


class FileTree:
    """Files below a root. Names are relative to it, with ``/`` between directories.

    A local tree raises OSError; one that a URI names raises StoreError with that URI.
    """

    def __init__(self, files: "fs.FileSystem", root: str, what: str | None = None, setting: str = "") -> None:
        """Take the files below ``root``; for the other arguments see ``of_uri``."""
        self._files, self._root, self._what, self._setting = files, root, what, setting
        self._is_local = files.type_name == "local"
        self._outage: Outage | None = None

    @classmethod
    def local(cls, root: Path) -> "FileTree":
        """Return the tree below a local directory; raise StoreError if pyarrow cannot express its path."""
        from pyarrow import fs

        try:
            str(root).encode()
        except UnicodeEncodeError as error:
            raise StoreError(
                f"the path of a results directory must be UTF-8, but it is {root}", remedy="other_results"
            ) from error
        return cls(fs.LocalFileSystem(), str(root))

    @classmethod
    def of_uri(
        cls,
        uri: str,
        what: str = "the shared store",
        setting: str = "store.uri",
        *,
        waits: Literal["never", "connected", "always"] = "never",
    ) -> "FileTree":
        """Return the tree below a URI or a path; its root is created in an existing parent.

        Args:
            uri: such as ``s3://bucket/prefix``, ``gs://bucket/prefix``, ``file:///path`` or a path.
            what: what error messages call it.
            setting: where the user named it.
            waits: whether operations wait while the object store is away: never, once connected, or, where another
                process has connected it before, always. File systems are not waited for.

        Raises:
            StoreError: it cannot be reached, written, read or deleted from.
        """
        import pyarrow as pa
        from pyarrow import fs

        shown = without_secrets(uri)
        try:
            files, root = fs.FileSystem.from_uri(uri if "://" in uri else str(expand_home(uri).absolute()))
        except (OSError, pa.ArrowException, ValueError) as error:
            reason = without_secrets(first_line(error))
            raise StoreError(
                f"{setting} must be a path or a URI such as s3://bucket/prefix, but it is '{shown}' ({reason})"
            ) from None
        tree = cls(files, root.rstrip("/"), f"{what} {shown}", setting)
        outage = None if tree._is_local else Outage(f"{what} {shown}", StoreError)
        tree._outage = outage if waits == "always" else None
        tree._retry(tree._probe)
        tree._outage = outage if waits != "never" else None
        return tree

    def write(self, name: str, content: bytes) -> None:
        """Write a small file; on a local disk and on an object store a reader sees the old content or the new one."""
        if self._is_local:
            temporary = str(PurePosixPath(name).with_name(f".{secrets.token_hex(8)}.tmp"))
            try:
                self._retry(lambda: self._write(temporary, [content]))
                with self._named_errors():
                    self._files.move(self._path(temporary), self._path(name))
            except BaseException:
                with suppress(OSError):
                    self._files.delete_file(self._path(temporary))
                raise
        else:  # a signal would close the stream to an object store, which creates the object
            self._retry(lambda: _uninterrupted(lambda: self._write(name, [content])))

    def upload(self, source: Path, name: str) -> None:
        """Write a local file's content; an interruption leaves a shorter file."""
        self._retry(lambda: self._write(name, _chunks(source)))

    def files(self, directory: str, *, recursive: bool = True) -> dict[str, FileStamp]:
        """Return the files in a directory (``""``: the root), by their names relative to it; none if it is missing."""
        from pyarrow import fs

        root = self._path(directory)
        selector = fs.FileSelector(root, allow_not_found=True, recursive=recursive)

        def act() -> dict[str, FileStamp]:
            with self._named_errors():
                try:
                    infos = self._files.get_file_info(selector)
                except FileNotFoundError:  # a directory was created or deleted while it was being listed
                    infos = self._files.get_file_info(selector)
            found = [info for info in infos if info.type == fs.FileType.File]
            return {info.path.removeprefix(f"{root}/"): FileStamp(info.size, info.mtime_ns) for info in found}

        return self._retry(act)

    def read(self, name: str) -> bytes | None:
        """Return a small file's content; None if it is missing."""
        with suppress(FileNotFoundError):
            return self._retry(lambda: b"".join(self._read(name)))
        return None

    def download(self, name: str, target: Path) -> None:
        """Write a file's content to a local file."""

        def act() -> None:
            with open(target, "wb") as file:
                for chunk in self._read(name):
                    file.write(chunk)

        self._retry(act)

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""

        def act() -> None:
            with suppress(FileNotFoundError), self._named_errors(FileNotFoundError):
                self._files.delete_file(self._path(name))

        self._retry(act)

    def _retry(self, act: Callable[[], T]) -> T:
        return act() if self._outage is None else self._outage.wait_out(act)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _read(self, name: str) -> Iterator[bytes]:
        with (
            self._named_errors(FileNotFoundError),
            self._files.open_input_stream(self._path(name), _NO_COMPRESSION) as stream,
        ):
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk

    def _write(self, name: str, chunks: Iterable[bytes]) -> None:
        with self._named_errors(), self._open_for_writing(name) as stream:
            for chunk in chunks:
                stream.write(chunk)

    def _open_for_writing(self, name: str) -> "pa.NativeFile":
        try:
            return self._files.open_output_stream(self._path(name), _NO_COMPRESSION)
        except FileNotFoundError:
            # Not the root: if a disk is no longer mounted, its empty mount point must not be used instead.
            for parent in reversed(PurePosixPath(name).parents[:-1]):
                self._files.create_dir(self._path(str(parent)), recursive=False)
            return self._files.open_output_stream(self._path(name), _NO_COMPRESSION)

    def _probe(self) -> None:
        name = f"probe.{secrets.token_hex(8)}"
        try:
            with self._named_errors(FileNotFoundError):
                self._files.open_output_stream(self._path(name)).close()
        except FileNotFoundError:
            with self._named_errors():
                self._files.create_dir(self._root, recursive=False)
            self.write(name, b"")
        self.delete(name)

    @contextmanager
    def _named_errors(self, passing: type[OSError] | None = None) -> Iterator[None]:
        """Name the tree in every error except ``passing``."""
        import pyarrow as pa

        try:
            yield
        except (OSError, pa.ArrowException) as error:
            if self._what is None or (passing and isinstance(error, passing)):
                raise
            raise StoreError(
                f"{self._what} must be reachable and writable, but is not ({first_line(error)}); correct "
                f"{self._setting} or make it reachable, then run the same command again"
            ) from error


def _chunks(file: Path) -> Iterator[bytes]:
    with open(file, "rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def _uninterrupted(act: Callable[[], None]) -> None:
    """Do what no signal may interrupt: Python handles signals on the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        act()
        return
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result()
