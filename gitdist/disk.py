"""Writes files so that a reader, a crash or a full disk leaves the old content or all of the new one.

A disk that is full, over its quota, read-only or failing becomes one DiskError that names the file.
"""

import errno
import fcntl
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gitdist.errors import DiskError, StoreError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_KINDS = {
    stat.S_IFREG: "it is a file",
    stat.S_IFDIR: "it is a directory",
    stat.S_IFIFO: "it is a pipe",
    stat.S_IFSOCK: "it is a socket",
}
_NOT_WRITABLE = {errno.EROFS, errno.EACCES, errno.EPERM}


def real_path(path: Path) -> Path:
    """Return an absolute path without links. A loop of links stays as it is; ``Path.resolve`` would raise."""
    return Path(os.path.realpath(path))


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file; a reader, or a crash, sees the old content or all of the new one.

    A symbolic link stays, and the file that it names is written.

    Raises:
        DiskError: the disk does not take it; the old content stays, and no temporary file.
        OSError: the path is a device, a pipe or a directory, or cannot be written.
    """
    os.close(replace_file(path, content))


def replace_file(path: Path, content: bytes) -> int:
    """Do what ``write_atomic`` does and return the descriptor, whose appends stay in this file if it is replaced."""
    path = real_path(path)
    if path.is_symlink() or (path.exists() and not path.is_file()):  # what stays a link is a loop
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    # No process id in the name: on a shared disk, containers of several hosts have the same ones.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with disk_errors(path, len(content)):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _write_all(descriptor, content)
            temporary.replace(path)
            fsync(path.parent)
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
    return descriptor


def remove_temporaries(directory: Path, keep: Path) -> None:
    """Delete the temporary files in a directory, except those of the file ``keep``; a live writer there fails."""
    for temporary in directory.glob(".*.tmp"):
        if not temporary.name.startswith(f".{keep.name}."):
            with suppress(OSError):
                temporary.unlink()


def append_whole(descriptor: int, content: bytes, path: Path) -> None:
    """Append all of ``content`` or nothing to a file that is open at its end and has no other writer; fsync it.

    Raises:
        DiskError: the disk does not take it; the file ``path`` has its old length.
    """
    old_size = os.fstat(descriptor).st_size
    with disk_errors(path, len(content)):
        try:
            _write_all(descriptor, content)
        except BaseException:
            os.ftruncate(descriptor, old_size)
            os.lseek(descriptor, old_size, os.SEEK_SET)
            raise


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None if it is missing or damaged, or no file: a pipe may never end."""
    try:
        value = json.loads(path.read_bytes()) if path.is_file() else None
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def check_readable(path: Path, *, is_directory: bool = False) -> None:
    """Check that a file, or a directory, of a study or a store can be read, or is missing; open nothing.

    Raises:
        StoreError: it is something else, such as a link that leads nowhere, or reading it is not allowed.
    """
    reason = _why_unreadable(path, is_directory)
    if reason is not None:
        kind = "directory" if is_directory else "file"
        raise StoreError(f"{path} must be a {kind} that can be read, but {reason}; restore it, or move it away")


def check_results_directory(path: Path) -> None:
    """Check that a results directory, or the store in it, is a directory that can be read, or is missing.

    Raises:
        StoreError: as ``check_readable``; the remedy is another results directory.
    """
    reason = _why_unreadable(path, is_directory=True)
    if reason is not None:
        raise results_directory_error(path, reason, rule="a directory that can be read")


def results_directory_error(path: Path | str, reason: str | None, rule: str = "writable") -> StoreError:
    """Return the error of a results directory that is not what ``rule`` says; the remedy is another one."""
    message = f"the results directory must be {rule}, but {path} is not ({reason})"
    return StoreError(message, remedy="other_results")


def _why_unreadable(path: Path, is_directory: bool) -> str | None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "its link leads nowhere" if path.is_symlink() else None
    except OSError as error:
        return os.strerror(error.errno or errno.EIO)
    is_of_kind, access = (stat.S_ISDIR, os.R_OK | os.X_OK) if is_directory else (stat.S_ISREG, os.R_OK)
    if not is_of_kind(mode):
        return _KINDS.get(stat.S_IFMT(mode), "it is a device")
    return None if os.access(path, access) else os.strerror(errno.EACCES)


@contextmanager
def locked(path: Path, *, blocking: bool = True) -> Iterator[bool]:
    """Hold the lock of a file, created if missing, against the other processes of this host.

    Yields:
        True; False if ``blocking`` is off and another process holds the lock.
    """
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing the file would leave the lock to a forked child


@contextmanager
def disk_errors(path: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Turn errors of the disk into one line that names ``path``; any other error passes.

    Raises:
        DiskError: the disk is full, over its quota, read-only or failing.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        act = "read or write" if error.errno == errno.EIO else "write"
        size = "" if num_bytes is None else f" ({num_bytes:,} bytes)"
        raise DiskError(f"cannot {act} {path}{size}: {os.strerror(error.errno or errno.ENOSPC)}") from error


def write_refusal(directory: Path) -> str | None:
    """Return the system's message if a directory is read-only or without permission; None otherwise (a full disk)."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return os.strerror(error.errno or errno.EACCES) if error.errno in _NOT_WRITABLE else None


def is_disk_error(error: BaseException) -> bool:
    """Return whether an error says that a disk is full, over its quota, read-only or failing."""
    # NumPy gives no number for a full disk: "100 requested and 10 written".
    return isinstance(error, OSError) and (
        error.errno in _DISK_ERRORS or (error.errno is None and str(error).endswith(" written"))
    )


def fsync(path: Path) -> None:
    """Return once a file, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)
