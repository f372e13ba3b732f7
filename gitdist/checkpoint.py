"""Checkpoints of a computation in steps: written atomically, verified when read, the newest two kept.

    DIRECTORY/<stem>-<number>-<checksum>.pt

The name holds the checksum of the content: a truncated or altered file is detected and removed, and the one before it
is used. Loading runs no code.
"""

import hashlib
import io
import re
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import Any

import torch

from gitdist.disk import disk_errors, write_atomic
from gitdist.errors import StoreError
from gitdist.torch_file import TorchFileError, read_torch_file

_NUM_KEPT = 2


class CheckpointFolder:
    """The checkpoints named ``stem`` in a directory, which may hold other files."""

    def __init__(self, directory: Path, stem: str) -> None:
        self._directory = directory
        self._stem = stem
        self._name = re.compile(rf"{re.escape(stem)}-(\d{{6,}})-([0-9a-f]{{32}})\.pt")

    def save(self, number: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint of a step, keep the newest one before it, and return the file.

        Only older ones are removed, so a late writer of an early step removes nothing that others need.

        Raises:
            DiskError: the disk does not take it; the older ones are kept.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        with disk_errors(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / f"{self._stem}-{number:06d}-{_checksum(content)}.pt"
        write_atomic(file, content)
        older = [other for other in self.files() if self._parts(other)[0] < number]
        for other in older[_NUM_KEPT - 1 :]:
            other.unlink(missing_ok=True)
        return file

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """Return the newest intact checkpoint, with its step and on the CPU; None if there is none.

        Newer damaged ones and temporary files of killed writers are removed.

        Raises:
            StoreError: a file cannot be read, or is intact but holds something else.
        """
        with disk_errors(self._directory):
            for temporary in self._directory.glob(f".{self._stem}-*.tmp"):
                temporary.unlink(missing_ok=True)
        for file in self.files():
            number, checksum = self._parts(file)
            with suppress(FileNotFoundError), disk_errors(file):  # the writer of a newer one may have removed it
                content = _read(file)
                if _checksum(content) != checksum:
                    file.unlink()
                    continue
                try:
                    return number, read_torch_file(content)
                except TorchFileError as error:
                    raise StoreError(
                        f"a checkpoint must hold tensors and plain values, but {file} has the right checksum and does "
                        f"not ({error}); remove it and run the same command again"
                    ) from error
        return None

    def newest(self) -> int:
        """Return the step in the name of the newest file, without reading it; 0 if there is none."""
        return max((self._parts(file)[0] for file in self.files()), default=0)

    def files(self) -> list[Path]:
        """Return the files, newest first, intact or not."""
        files = self._directory.iterdir() if self._directory.is_dir() else ()
        return sorted((file for file in files if self._name.fullmatch(file.name)), key=self._parts, reverse=True)

    def _parts(self, file: Path) -> tuple[int, str]:
        match = self._name.fullmatch(file.name)
        assert match is not None, "files() selects by this name"
        return int(match[1]), match[2]


def _read(file: Path) -> bytes:
    if not S_ISREG(file.stat().st_mode):  # reading a pipe would never end
        raise StoreError(f"a checkpoint must be a file, but {file} is not; remove it and run the same command again")
    try:
        return file.read_bytes()
    except PermissionError as error:
        raise StoreError(
            f"a checkpoint must be readable, but {file} is not ({error.strerror}); give this user the permission to "
            "read it, and run the same command again"
        ) from error


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
