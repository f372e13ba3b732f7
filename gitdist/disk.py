"""Files that a reader, a crash or a full disk finds whole: the old content or all of the new one.

A disk that is full, over its quota, read-only or failing becomes one line that names the file and the remedy.
"""

import errno
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from gitdist.errors import DiskError

_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}
_REFUSAL = {errno.EROFS, errno.EACCES, errno.EPERM}


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees either the old content or all of the new one.

    Raises:
        DiskError: the disk does not take it; the old content stands, and nothing else is left.
    """
    os.close(replace_file(path, content))


def replace_file(path: Path, content: bytes) -> int:
    """Do what ``write_atomic`` does and return the new file's descriptor.

    What is appended through it goes into this very file, even after another writer has replaced it in turn.

    Raises:
        DiskError: the disk does not take it; the old content stands, and nothing else is left.
    """
    # Process ids are no names on a shared disk: containers of several hosts have the same ones.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with disk_errors(path, len(content)):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            _write_through(descriptor, content)
            temporary.replace(path)
            fsync(path.parent)
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
    return descriptor


def sweep(directory: Path, spare: Path | None = None) -> None:
    """Delete what killed writers left unfinished in a directory; a live writer's ``write_atomic`` there fails.

    Args:
        directory: where to look, but not in directories below it.
        spare: a file whose unfinished versions stay.
    """
    for leftover in directory.glob(".*.tmp"):
        if spare is None or not leftover.name.startswith(f".{spare.name}."):
            with suppress(OSError):  # what stays does no harm
                leftover.unlink()


def append_whole(descriptor: int, content: bytes, path: Path) -> None:
    """Append to an open file all of ``content`` or nothing.

    Args:
        descriptor: of a file that nobody else writes to, open at its end.
        content: what to append; it is on the disk afterwards.
        path: what to call the file in a message.

    Raises:
        DiskError: the disk does not take it; the file has its old length.
    """
    before = os.fstat(descriptor).st_size
    with disk_errors(path, len(content)):
        try:
            _write_through(descriptor, content)
        except OSError:
            os.ftruncate(descriptor, before)
            os.lseek(descriptor, before, os.SEEK_SET)
            raise


def read_object(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None where there is none, or a damaged one."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a file, made where it is missing, against the other processes of this host."""
    with open(path, "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # closing leaves it to a forked child, where there is one


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of a file as ``locked`` does, but without waiting; yield whether it is held."""
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def lock_name(path: Path) -> str:
    """Return the name of a file's lock that no other lock has: of this kernel's run, the file system and the file.

    Locks of one file on two hosts are two where the network disk does not forward them.
    """
    status = path.stat()
    return f"{_kernel_run()}:{status.st_dev}:{status.st_ino}"


@cache
def _kernel_run() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return secrets.token_hex(16)


@contextmanager
def disk_errors(place: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Turn what the disk under ``place`` refuses into one line.

    Args:
        place: the file or directory in question.
        num_bytes: its size, where it is known.

    Raises:
        DiskError: the disk is full, over its quota, read-only or failing; any other error passes.
    """
    try:
        yield
    except OSError as error:
        if not is_disk_error(error):
            raise
        size = "" if num_bytes is None else f" ({num_bytes:,} bytes)"
        raise DiskError(
            f"the disk must hold {place}{size}, but says: {os.strerror(error.errno or errno.ENOSPC)}; free "
            "space there or move the results to another disk (--results DIR), then run the same command again"
        ) from error


def write_refusal(directory: Path) -> str | None:
    """Return why no file can be created in an existing directory: a read-only file system, or no permission.

    Returns:
        The system's error message; None if a file can be created, or if another error (a full disk) prevents it.
    """
    try:
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return os.strerror(error.errno or errno.EACCES) if error.errno in _REFUSAL else None


def is_disk_error(error: BaseException) -> bool:
    """Tell whether an error says that a disk is full, over its quota, read-only or failing."""
    # NumPy gives no number for a full disk: "100 requested and 10 written".
    return isinstance(error, OSError) and (
        error.errno in _TROUBLE or (error.errno is None and str(error).endswith(" written"))
    )


def fsync(path: Path) -> None:
    """Return once a file, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_through(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)
