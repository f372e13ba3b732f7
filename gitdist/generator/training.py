"""Trains MUNIT on a data set; a killed training goes on from its newest checkpoint and ends with the same bits."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from gitdist.checkpoint import CheckpointFolder
from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.disk import write_atomic
from gitdist.errors import TrialFailedError
from gitdist.generator.batches import BalancedBatches
from gitdist.generator.finite import non_finite
from gitdist.generator.loss_rows import LossRows
from gitdist.generator.munit import check_geometry
from gitdist.generator.trainer import MunitTrainer
from gitdist.spec import MunitSpec

WEIGHTS_FILE = "generator.safetensors"
LOSSES_FILE = "losses.jsonl"
ROW_EVERY = 10  # steps whose mean makes one row of losses; reading them from a GPU makes it wait


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """How far a training is: the number of steps done, of how many, and the mean losses of the last few."""

    step: int
    total: int
    losses: dict[str, float]
    elapsed_s: float


def train_munit(
    spec: MunitSpec,
    dataset: Dataset,
    target: Path,
    scratch: Path,
    report: Callable[[TrainingStep], None],
    compute: Compute,
) -> None:
    """Train MUNIT on a data set's training images and write its weights and losses.

    Args:
        spec: settings of networks and training.
        dataset: whose ``train`` split is read; labels serve for class-balanced sampling only.
        target: directory that gets ``generator.safetensors`` (the first domain's auto-encoder) and ``losses.jsonl``.
        scratch: directory of the checkpoints; a training killed before goes on from there.
        report: called after every few steps.
        compute: device and precision.

    Raises:
        SpecError: the images' size does not go with the settings.
        TrialFailedError: a loss or a weight became infinite or not a number.
        DiskError: the disk does not take a checkpoint or the result; the next call goes on from the last checkpoint.
    """
    check_geometry(spec, dataset.image_shape)
    batches = BalancedBatches(dataset.train.images, dataset.train.labels, spec, compute)
    trainer = MunitTrainer(spec, batches, dataset.image_shape[0], compute)
    losses = LossRows()
    checkpoints = CheckpointFolder(scratch, "step")
    start = _resume(trainer, losses, checkpoints)
    began = time.monotonic()
    for step in range(start + 1, spec.steps + 1):
        losses.add(trainer.step(step - 1))
        if step % ROW_EVERY == 0 or step == spec.steps:
            row, elapsed_s = losses.close_row(step), time.monotonic() - began
            report(TrainingStep(step=step, total=spec.steps, losses=row, elapsed_s=elapsed_s))
        if step % spec.checkpoint_every == 0 and step < spec.steps:
            losses.read(step)
            checkpoints.save(step, {**trainer.state(), "rows": losses.rows, "pending": losses.pending})
    _write(trainer, losses, target)


def _resume(trainer: MunitTrainer, losses: LossRows, checkpoints: CheckpointFolder) -> int:
    found = checkpoints.load()
    if found is None:
        return 0
    step, state = found
    trainer.restore(state)
    losses.rows, losses.pending = state["rows"], state["pending"]
    return step


def _write(trainer: MunitTrainer, losses: LossRows, target: Path) -> None:
    weights = {name: tensor.contiguous().cpu() for name, tensor in trainer.auto_encoders[0].state_dict().items()}
    if broken := non_finite(weights):  # the last step's losses are those of the weights before it
        raise TrialFailedError(f"generator training: {broken} is not finite after step {trainer.spec.steps}")
    write_atomic(target / WEIGHTS_FILE, save(weights))
    write_atomic(target / LOSSES_FILE, losses.json_lines().encode())
