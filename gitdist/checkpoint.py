"""Checkpoints of something that is computed step by step: written atomically, checked when read, the newest two kept.

    DIRECTORY/<stem>-<number>-<checksum>.pt

The name carries the checksum of the content, so a truncated or altered file is seen, removed, and the one before it
taken. Loading runs no code.
"""

import hashlib
import io
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from gitdist.disk import disk_errors, write_atomic
from gitdist.errors import StoreError
from gitdist.torch_file import TorchFileError, read_torch_file

_KEPT = 2


class CheckpointFolder:
    """The checkpoints named ``stem`` in a directory; other files there are left alone."""

    def __init__(self, directory: Path, stem: str) -> None:
        """Look into ``directory``, which ``save`` makes where it is missing."""
        self._directory = directory
        self._stem = stem
        self._name = re.compile(rf"{re.escape(stem)}-(\d{{6,}})-([0-9a-f]{{32}})\.pt")

    def save(self, number: int, state: dict[str, Any]) -> Path:
        """Write the checkpoint after step ``number``, keep the newest one before it, and return the file.

        Only older ones are removed: a writer that comes late with an early step takes nothing from the others.

        Args:
            number: the step, from 1.
            state: tensors, numbers, strings and containers of these.

        Raises:
            DiskError: the disk does not take it; the older ones are all there then.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
        with disk_errors(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
        file = self._directory / f"{self._stem}-{number:06d}-{_checksum(content)}.pt"
        write_atomic(file, content)
        older = [other for other in self.files() if self._parts(other)[0] < number]
        for other in older[_KEPT - 1 :]:
            other.unlink(missing_ok=True)
        return file

    def load(self) -> tuple[int, dict[str, Any]] | None:
        """Return the newest whole checkpoint, with its step and on the CPU; None where there is none.

        Damaged ones that are newer are removed, and so is what a killed writer left half-written.

        Raises:
            StoreError: a file cannot be read, or is whole but none of ours.
        """
        with disk_errors(self._directory):
            for leftover in self._directory.glob(f".{self._stem}-*.tmp"):
                leftover.unlink(missing_ok=True)
        for file in self.files():
            number, checksum = self._parts(file)
            with suppress(FileNotFoundError), disk_errors(file):  # a newer one's writer may remove it meanwhile
                content = file.read_bytes()
                if _checksum(content) == checksum:
                    return number, _unpack(file, content)
                file.unlink()
        return None

    def newest(self) -> int:
        """Return the step that the newest file claims, without reading it; 0 where there is none."""
        return max((self._parts(file)[0] for file in self.files()), default=0)

    def files(self) -> list[Path]:
        """Return the files, newest first, whole or not."""
        files = self._directory.iterdir() if self._directory.is_dir() else ()
        return sorted((file for file in files if self._name.fullmatch(file.name)), key=self._parts, reverse=True)

    def _parts(self, file: Path) -> tuple[int, str]:
        match = self._name.fullmatch(file.name)
        assert match is not None, "only files named by save come here"
        return int(match[1]), match[2]


def _unpack(file: Path, content: bytes) -> dict[str, Any]:
    try:
        state: dict[str, Any] = read_torch_file(content)
    except TorchFileError as error:
        raise StoreError(
            f"a checkpoint holds tensors and plain values, but {file} has the right checksum and does not ({error}); "
            "remove it and run the same command again"
        ) from error
    return state


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
