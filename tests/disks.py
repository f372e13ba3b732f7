"""Disks that are soon full, or can only be read."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Mount a disk of ``size`` (``"1m"``, say) at ``place``; skip the test where that is not allowed."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a full disk needs a small one mounted, which is not allowed here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def read_only(place: Path) -> Iterator[None]:
    """Have a directory be on a disk that nobody can write; skip the test where that is not allowed."""
    mounted = subprocess.run(["mount", "-o", "bind,ro", place, place], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a directory cannot be mounted for reading here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill a disk to its last ``leave`` bytes and return the file that does."""
    file = disk / "full"
    status = os.statvfs(disk)
    with open(file, "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, status.f_bavail * status.f_frsize - leave)
    return file
