"""Checkpoints of a trial, one file an epoch: written atomically, checked when read, the newest two kept.

    DIRECTORY/epoch-<number>-<checksum>.pt

The name carries the checksum of the content, so a truncated or altered file is seen and the one before it is taken.
Loading runs no code (``weights_only``). The rows of all epochs so far stand inside: whatever a crash took from the
readers of a trial, state and rows come back together.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gitdist.store import write_atomic

_NAME = re.compile(r"epoch-(\d{6})-([0-9a-f]{32})\.pt")
_KEPT = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """All that training needs to go on after an epoch.

    ``model`` and ``optimizer`` are state dicts (batch norm's running statistics among them), ``cursors`` int64 ``[C]``
    counts the draws taken of each class, ``rows`` holds what each epoch reported.
    """

    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    cursors: torch.Tensor
    rows: list[dict[str, Any]]


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into ``directory``, remove all but the newest two, and return its file."""
    buffer = io.BytesIO()
    torch.save({field: getattr(checkpoint, field) for field in Checkpoint.__dataclass_fields__}, buffer)
    content = buffer.getvalue()
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"epoch-{checkpoint.epoch:06d}-{_checksum(content)}.pt"
    write_atomic(file, content)
    # Of this epoch or later, others can only be damaged ones that training went back from.
    older = [other for other in _newest_first(directory) if _parts(other)[0] < checkpoint.epoch]
    for other in {*_newest_first(directory), *directory.glob(".epoch-*.tmp")} - {file, *older[: _KEPT - 1]}:
        other.unlink(missing_ok=True)
    return file


def load_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint of ``directory``, on the CPU; None where there is none."""
    for file in _newest_first(directory):
        content = file.read_bytes()
        if _checksum(content) == _parts(file)[1]:
            return Checkpoint(**torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    return None


def last_epoch(directory: Path) -> int:
    """Return the epoch of the newest whole checkpoint of ``directory``, 0 where there is none."""
    checkpoint = load_checkpoint(directory)
    return checkpoint.epoch if checkpoint else 0


def completed_rows(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of all epochs up to the newest whole checkpoint of ``directory``.

    Training goes on after the last of them: whoever keeps rows of its own starts from these.
    """
    checkpoint = load_checkpoint(directory)
    return checkpoint.rows if checkpoint else []


def _newest_first(directory: Path) -> list[Path]:
    files = directory.iterdir() if directory.is_dir() else ()
    return sorted(
        (file for file in files if _NAME.fullmatch(file.name)), key=lambda file: _parts(file)[0], reverse=True
    )


def _parts(file: Path) -> tuple[int, str]:
    match = _NAME.fullmatch(file.name)
    assert match is not None, "only files named by save_checkpoint come here"
    return int(match[1]), match[2]


def _checksum(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
