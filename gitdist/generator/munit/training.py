"""Trains MUNIT on a data set; a killed training resumes from its newest checkpoint and ends with the same bits."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from gitdist.checkpoint import CheckpointFolder
from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.disk import write_atomic
from gitdist.errors import TrialFailedError
from gitdist.generator.base import TrainingStep
from gitdist.generator.munit.batches import BalancedBatches
from gitdist.generator.munit.networks import WEIGHTS_FILE, AutoEncoder, Discriminator, first_non_finite, initialise
from gitdist.generator.munit.objective import LOSS_NAMES, discriminator_loss, generator_losses, translate, weighted_sum
from gitdist.seeds import torch_rng
from gitdist.spec import MunitSpec

_PAST_STEPS = 200  # of a trained generator, for its MLflow run
LOSSES_FILE = "losses.jsonl"

_ROW_EVERY = 10  # steps averaged to one row of losses; reading the losses waits for the GPU
_NUM_AUTO_ENCODERS = {"one": 1, "two": 2}
_BETAS = (0.5, 0.999)
_INITIAL_STD = (None, 0.02)  # auto-encoders Kaiming, discriminators N(0, 0.02)
_SEED_NAMES = ("generator/auto-encoders", "generator/discriminators")


def train_munit(
    spec: MunitSpec,
    dataset: Dataset,
    target: Path,
    scratch: Path,
    report: Callable[[TrainingStep], None],
    compute: Compute,
) -> None:
    """Train MUNIT on a data set's training images and write its weights and losses.

    Raises:
        TrialFailedError: a loss or a weight became infinite or not a number.
        DiskError: the disk fails or is full; the next call resumes from the last checkpoint.
    """
    batches = BalancedBatches(dataset.train.images, dataset.train.labels, spec, compute)
    trainer = MunitTrainer(spec, batches, dataset.image_shape[0], compute)
    losses = _Losses()
    checkpoints = CheckpointFolder(scratch, "step")
    start = 0
    if (found := checkpoints.load()) is not None:
        start, state = found
        trainer.restore(state)
        losses.rows, losses.pending = state["rows"], state["pending"]
    began = time.monotonic()
    for step in range(start + 1, spec.steps + 1):
        losses.add(trainer.step(step - 1))
        if step % _ROW_EVERY == 0 or step == spec.steps:
            row, elapsed_s = losses.finish_row(step), time.monotonic() - began
            report(TrainingStep(step=step, total=spec.steps, losses=row, elapsed_s=elapsed_s))
        if step % spec.checkpoint_every == 0 and step < spec.steps:
            losses.read(step)
            checkpoints.save(step, {**trainer.state(), "rows": losses.rows, "pending": losses.pending})
    weights = {name: tensor.contiguous().cpu() for name, tensor in trainer.auto_encoders[0].state_dict().items()}
    if broken := first_non_finite(weights):  # the last step's losses are those of the weights before it
        raise TrialFailedError(f"generator training: {broken} is not finite after step {spec.steps}")
    write_atomic(target / WEIGHTS_FILE, save(weights))
    write_atomic(target / LOSSES_FILE, losses.json_lines().encode())


class MunitTrainer:
    """The networks and optimisers of one MUNIT training."""

    def __init__(self, spec: MunitSpec, batches: BalancedBatches, image_channels: int, compute: Compute) -> None:
        """Create the networks with their seeded initial weights; the published method has ``auto_encoders: two``."""
        self.spec, self.batches = spec, batches
        domains = range(_NUM_AUTO_ENCODERS[spec.auto_encoders])
        self.auto_encoders = [AutoEncoder(spec, image_channels) for _ in domains]
        self.discriminators = [Discriminator(spec, image_channels) for _ in domains]
        self._networks = (nn.ModuleList(self.auto_encoders), nn.ModuleList(self.discriminators))
        for network, std, name in zip(self._networks, _INITIAL_STD, _SEED_NAMES, strict=True):
            initialise(network, std, torch_rng(spec.seed, name))
            network.to(compute.device)
        self._optimisers = [
            torch.optim.Adam(network.parameters(), spec.lr, _BETAS, weight_decay=spec.weight_decay, fused=True)
            for network in self._networks
        ]

    def step(self, step: int) -> Tensor:
        """Update the discriminators, then the auto-encoders.

        Args:
            step: counted from 0; determines the batch and the learning rate.

        Returns:
            The losses in the order of ``LOSS_NAMES``, float32 ``[5]``, on the device.
        """
        domains = range(len(self.auto_encoders))
        images = [self.batches.images(step, domain) for domain in domains]
        styles = [self.batches.styles(step, domain) for domain in domains]
        translations = translate(self.auto_encoders, images, styles)
        loss = discriminator_loss(self.discriminators, images, translations)
        self._update(1, 2 * loss, step)
        self._networks[1].requires_grad_(False)  # the GAN term trains the auto-encoders only
        losses = generator_losses(self.discriminators, images, translations)
        self._update(0, weighted_sum(losses, self.spec), step)
        self._networks[1].requires_grad_(True)
        return torch.stack((loss.detach(), *(value.detach() for value in losses.values())))

    def _update(self, index: int, loss: Tensor, step: int) -> None:
        optimiser = self._optimisers[index]
        for group in optimiser.param_groups:
            group["lr"] = self.spec.lr * 0.5 ** (step // self.spec.lr_halved_every)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    def state(self) -> dict[str, Any]:
        """Return everything that later steps depend on."""
        return {
            "networks": [network.state_dict() for network in self._networks],
            "optimisers": [optimiser.state_dict() for optimiser in self._optimisers],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Load what ``state`` returned."""
        for network, weights in zip(self._networks, state["networks"], strict=True):
            network.load_state_dict(weights)
        for optimiser, moments in zip(self._optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(moments)


class _Losses:
    """Rows of mean losses over a few steps, the steps of the unfinished row, and losses still on the device."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []
        self.pending: list[list[float]] = []
        self._unread: list[Tensor] = []

    def add(self, losses: Tensor) -> None:
        """Append one step's losses, float32 ``[5]``, without waiting for the device."""
        self._unread.append(losses)

    def read(self, step: int) -> None:
        """Read the losses up to ``step`` (from 1) from the device; raise TrialFailedError if one is not finite."""
        values = torch.stack(self._unread).tolist() if self._unread else []
        self._unread.clear()
        for number, row in enumerate(values, start=step - len(values) + 1):
            for name, value in zip(LOSS_NAMES, row, strict=True):
                if not math.isfinite(value):
                    raise TrialFailedError(f"generator training: the {name} loss became {value} in step {number}")
        self.pending += values

    def finish_row(self, step: int) -> dict[str, float]:
        """Average the steps since the last row to a row that ends with ``step``."""
        self.read(step)
        means = [sum(column) / len(self.pending) for column in zip(*self.pending, strict=True)]
        self.rows.append([float(step), *means])
        self.pending = []
        return dict(zip(LOSS_NAMES, means, strict=True))

    def json_lines(self) -> str:
        """Return one JSON object per row: ``step`` and each loss."""
        rows = (dict(zip(("step", *LOSS_NAMES), (int(row[0]), *row[1:]), strict=True)) for row in self.rows)
        return "".join(json.dumps(row) + "\n" for row in rows)


def past_steps(artifact: Path) -> list[TrainingStep]:
    """Return some of the training steps of a generator in the store; none where their file is damaged."""
    file = artifact / LOSSES_FILE
    try:
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
        total = int(rows[-1]["step"])
        kept = [*rows[: -1 : max(1, len(rows) // _PAST_STEPS)], rows[-1]]
        steps = [(int(row.pop("step")), {name: float(loss) for name, loss in row.items()}) for row in kept]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # the next run makes the artifact anew
        return []
    return [TrainingStep(step=step, total=total, losses=losses, elapsed_s=0.0) for step, losses in steps]
