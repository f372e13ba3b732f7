"""What a trial's checkpoint holds, one per epoch, and the classifier in it.

It includes the rows of all epochs so far: after a crash, state and rows come back together.
"""

from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gitdist.checkpoint import CheckpointFolder
from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.disk import disk_errors, write_atomic
from gitdist.errors import StoreError, first_line
from gitdist.networks import build_classifier
from gitdist.networks.classifier import to_device
from gitdist.networks.pretrained import WeightsFile
from gitdist.seeds import torch_rng
from gitdist.spec import TrialSpec
from gitdist.trial.epoch_row import EpochRow


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
    rows: list[EpochRow]
    average: dict[str, Any] | None = None


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint into ``directory`` and return its file."""
    state = {field.name: getattr(checkpoint, field.name) for field in fields(Checkpoint)}
    state["rows"] = [row.to_json() for row in checkpoint.rows]
    return checkpoints_of(directory).save(checkpoint.epoch, state)


def load_checkpoint(directory: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint of ``directory``, on the CPU; None if there is none.

    Raises:
        StoreError: a file cannot be read, or holds something else.
    """
    found = checkpoints_of(directory).load()
    if found is None:
        return None
    epoch, state = found
    try:
        return Checkpoint(**{**state, "rows": [EpochRow.from_json(row) for row in state["rows"]]})
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"a checkpoint must hold the state of a trial, but that of epoch {epoch} in {directory} does not "
            f"({first_line(error)}): another version wrote it; remove it and run the same command again"
        ) from error


def checkpoints_of(directory: Path) -> CheckpointFolder:
    """Return the checkpoint files of the trial in ``directory``."""
    return CheckpointFolder(directory, "epoch")


def fresh_classifier(spec: TrialSpec, dataset: Dataset, weights: WeightsFile | None = None) -> nn.Module:
    """Return the classifier that a trial begins with, on the CPU; without ``weights`` it is not pretrained.

    Raises:
        SpecError: as ``build_classifier``.
    """
    return build_classifier(
        spec.network,
        dataset.image_shape,
        dataset.num_classes,
        options=spec.network_options,
        cosine_scale=spec.ldam_scale if spec.loss == "ldam" else None,
        pretrained=weights.path if weights else None,
        rng=torch_rng(spec.seed, "trial/weights"),
    )


def weights_source(spec: TrialSpec) -> str | None:
    """Return where a trial's pretrained weights come from: a file, or a library's network; None if it has none."""
    return spec.network if spec.pretrained is True else spec.pretrained or None


def load_classifier(spec: TrialSpec, dataset: Dataset, directory: Path, compute: Compute) -> nn.Module:
    """Return the classifier of a trial after its last epoch, in evaluation mode on the device of ``compute``.

    Its weights are the averaged ones if the trial keeps an EMA.

    Raises:
        StoreError: there is no whole checkpoint of the last epoch.
    """
    checkpoint = load_checkpoint(directory)
    if checkpoint is None or checkpoint.epoch < spec.epochs:
        found = f"only one of epoch {checkpoint.epoch}" if checkpoint else "none"
        raise StoreError(
            f"a trained classifier needs a whole checkpoint of epoch {spec.epochs}, but {directory} has {found}; "
            "resume training"
        )
    model = fresh_classifier(spec, dataset)
    model.load_state_dict(checkpoint.average["classifier"] if checkpoint.average else checkpoint.model)
    return to_device(model, compute.device).eval()


def copy_newest(source: Path, target: Path) -> None:
    """Copy the newest checkpoint file, unless ``target`` has one as new, or it is being removed."""
    newest = checkpoints_of(source).files()[:1]
    if newest and checkpoints_of(target).newest() < checkpoints_of(source).newest():
        with suppress(FileNotFoundError), disk_errors(newest[0]):
            write_atomic(target / newest[0].name, newest[0].read_bytes())


def completed_rows(directory: Path) -> list[EpochRow]:
    """Return the rows of all epochs up to the newest whole checkpoint of ``directory``."""
    checkpoint = load_checkpoint(directory)
    return checkpoint.rows if checkpoint else []
