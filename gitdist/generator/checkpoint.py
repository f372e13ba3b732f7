"""The checkpoints of a generator training: two newest kept, each written atomically and checked when it is read.

A file is 32 bytes of blake2b of the rest, then what torch.save wrote: tensors and numbers only.
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from gitdist.store import write_atomic

_DIGEST_BYTES = 32
_KEPT = 2


def save_checkpoint(directory: Path, step: int, state: dict[str, Any]) -> None:
    """Write ``state`` as the checkpoint after ``step`` steps and remove all but the two newest."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomic(directory / f"step-{step:08d}.ckpt", _digest(payload) + payload)
    for old in _newest_first(directory)[_KEPT:]:
        old.unlink()


def load_checkpoint(directory: Path) -> tuple[int, dict[str, Any]] | None:
    """Return the newest whole checkpoint with its number of steps; None if there is none.

    Damaged ones are removed, so that training goes on from the one before or from the start.
    """
    for path in _newest_first(directory):
        content = path.read_bytes()
        payload = content[_DIGEST_BYTES:]
        if content[:_DIGEST_BYTES] == _digest(payload):
            state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            return int(path.stem.removeprefix("step-")), state
        path.unlink()
    return None


def _newest_first(directory: Path) -> list[Path]:
    return sorted(directory.glob("step-*.ckpt"), reverse=True)


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=_DIGEST_BYTES).digest()
