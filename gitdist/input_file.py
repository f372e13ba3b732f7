"""Files that a user names: images, arrays, weights. They may be anything, and may change at any time.

A file that cannot be read is a DataError that says why: missing, no permission, a pipe, changed meanwhile. Whether
it has the right content is for the caller to check; ``foreign_content`` names what is often found instead.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import psutil

from gitdist.errors import DataError, SpecError
from gitdist.limits import allotted_memory

_PERMISSION = "give this user the permission to read it"
_REMEDIES = {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOENT: "correct the path, or restore the file",
    errno.ELOOP: "remove the link",
}
_FOREIGN = {  # by what a file begins with, in lower case and without leading blanks
    b"<!doctype": "it is a web page",
    b"<html": "it is a web page",
    b"<?xml": "it is XML",
    b"version https://git-lfs": "it is a git-LFS pointer; get the file itself with `git lfs pull`",
    b"gif8": "it is a GIF image",
    b"ii*\0": "it is a TIFF image",
    b"mm\0*": "it is a TIFF image",
    b"%pdf": "it is a PDF document",
}
_HEAD = 64  # bytes


def expand_home(path: str | Path) -> Path:
    """Return a path with the home directory in place of a leading ``~`` or ``~user``; ``./~`` is a file of that name.

    Raises:
        SpecError: the home directory is not known.
    """
    expanded = os.path.expanduser(path)
    if expanded == str(path) and expanded.startswith("~"):
        user = expanded.partition("/")[0]
        remedy = "set HOME, or write the path in full" if user == "~" else f"write the path in full, or ./{user}"
        raise SpecError(f"the home directory {user} of '{path}' is not known; {remedy}")
    return Path(expanded)


@contextmanager
def open_input(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading; never wait for a pipe or a device.

    Raises:
        DataError: it is missing, not a file or not readable, or it changed before the block ended.
    """
    status = input_status(path)
    if status is None:
        raise _read_error(path, FileNotFoundError(errno.ENOENT, "missing"))
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} must be a file, but it is {_kind(status.st_mode)}; remove or replace it")
    try:
        with open(path, "rb") as stream:
            before = _version(stream)
            try:
                yield stream
            except Exception as error:
                _check_unchanged(path, stream, before, error)
                raise
            _check_unchanged(path, stream, before)
    except OSError as error:
        if error.errno is None:  # not of the system, but of the library that parses the content
            raise
        raise _read_error(path, error) from error


def read_input(path: Path) -> bytes:
    """Return the content of a file; raise DataError as ``open_input`` does, or if it does not fit into the memory."""
    with open_input(path) as stream:
        check_memory(os.fstat(stream.fileno()).st_size, str(path))
        return stream.read()


def input_status(path: Path) -> os.stat_result | None:
    """Return the status of a file or folder; None if it is missing; raise DataError if that cannot be known."""
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a path with a zero byte
        return None
    except OSError as error:
        raise _read_error(path, error) from error


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder by name; raise DataError if it is missing or cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _read_error(folder, error) from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is, or its link leads to, a folder; raise DataError if its link cannot be followed."""
    try:
        if entry.is_symlink() and not entry.name.startswith("."):
            entry.stat()
        return entry.is_dir()
    except OSError as error:
        if entry.name.startswith("."):
            return False
        raise _read_error(Path(entry.path), error) from error


def check_memory(num_bytes: int, what: str) -> None:
    """Raise DataError if so many bytes are more than half of the free memory: preparing data takes copies of them."""
    free = min(psutil.virtual_memory().available, allotted_memory())
    if 2 * num_bytes > free:
        raise DataError(
            f"{what} must fit into half of the free memory ({free / 1e9:,.1f} GB), but needs {num_bytes / 1e9:,.1f} "
            "GB; reduce it, or use a machine with more memory"
        )


def foreign_content(stream: BinaryIO) -> str | None:
    """Return what an open file is by its first bytes if it is a kind that is often found by mistake, else None."""
    stream.seek(0)
    head = stream.read(_HEAD)
    if not head:
        return "it is empty"
    if head[4:8] == b"ftyp":
        return "it is a HEIC or AVIF image, or a film"
    start = head.lstrip().lower()
    return next((kind for known, kind in _FOREIGN.items() if start.startswith(known)), None)


def _read_error(path: Path, error: OSError) -> DataError:
    number = error.errno or errno.EIO
    reason = "its link leads nowhere" if number == errno.ENOENT and path.is_symlink() else os.strerror(number)
    return DataError(f"cannot read {path}: {reason}; {_REMEDIES.get(number, 'check its disk or network drive')}")


def _kind(mode: int) -> str:
    for is_kind, kind in ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket")):
        if is_kind(mode):
            return kind
    return "a device"


def _version(stream: BinaryIO) -> tuple[int, int]:
    status = os.fstat(stream.fileno())
    return status.st_size, status.st_mtime_ns


def _check_unchanged(path: Path, stream: BinaryIO, before: tuple[int, int], cause: Exception | None = None) -> None:
    if _version(stream) != before:
        raise DataError(f"{path} must not change while it is read, but it did; run again when it is whole") from cause
