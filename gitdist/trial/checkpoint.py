"""What a trial's checkpoint holds, one per epoch.

It includes the rows of all epochs so far: after a crash, state and rows come back together.
"""

from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from gitdist.checkpoint import CheckpointFolder
from gitdist.disk import disk_errors, write_atomic


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """All that training needs to resume after an epoch.

    ``model`` and ``optimizer`` are state dicts (batch norm's running statistics included), ``cursors`` int64 ``[C]``
    counts the draws taken of each class, ``rows`` holds what each epoch reported, ``average`` the state of the EMA of
    the weights; None without one, as in the files of earlier versions.
    """

    epoch: int
    model: dict[str, Any]
    optimizer: dict[str, Any]
    cursors: torch.Tensor
    rows: list[dict[str, Any]]
    average: dict[str, Any] | None = None


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into ``directory`` and return its file."""
    state = {field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint)}
    return checkpoints_of(directory).save(checkpoint.epoch, state)


def load_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint of ``directory``, on the CPU; None if there is none."""
    found = checkpoints_of(directory).load()
    return Checkpoint(**found[1]) if found else None


def checkpoints_of(directory: Path) -> CheckpointFolder:
    """Return the checkpoint files of the trial in ``directory``."""
    return CheckpointFolder(directory, "epoch")


def copy_newest(source: Path, target: Path) -> None:
    """Copy the newest checkpoint file, unless ``target`` has one as new, or it is being removed."""
    newest = checkpoints_of(source).files()[:1]
    if newest and checkpoints_of(target).newest() < checkpoints_of(source).newest():
        with suppress(FileNotFoundError), disk_errors(newest[0]):
            write_atomic(target / newest[0].name, newest[0].read_bytes())


def completed_rows(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of all epochs up to the newest whole checkpoint of ``directory``."""
    checkpoint = load_checkpoint(directory)
    return checkpoint.rows if checkpoint else []
