"""One epoch of training: the hot loop. Nothing in it waits for the device; the losses are read once an epoch."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.errors import StreamError, TrialFailedError
from gitdist.spec import TrialSpec
from gitdist.stream.draw_stream import DrawStream
from gitdist.trial.average import WeightAverage
from gitdist.trial.classifier import Classifier, compiled, move
from gitdist.trial.losses import Loss, build_loss
from gitdist.trial.mixing import check_threshold, eligible_classes
from gitdist.trial.mixup import epoch_mixup
from gitdist.trial.pipeline import Pipeline
from gitdist.trial.plan import draws_needed, epoch_rows, replaced_rows
from gitdist.trial.true_nuisance import check_true_nuisance, epoch_nuisance


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """Mean loss and accuracy over the epoch's samples, samples replaced by draws, and wall-clock seconds.

    With class weights ``loss`` is the mean of the batches' weighted means; with mixup ``accuracy`` counts the answers
    that are the sample's own label, not its partner's. ``waiting_s`` is the part of ``train_s`` that went by waiting
    for the stream; ``generated`` are the images that this process made for it meanwhile.
    """

    loss: float
    accuracy: float
    draws: int
    train_s: float
    waiting_s: float
    generated: int


def learning_rate(spec: TrialSpec, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 1: linear warm-up, then steps down after the milestones."""
    warmup = min(1.0, epoch / spec.lr_warmup_epochs) if spec.lr_warmup_epochs else 1.0
    steps_down = sum(epoch > milestone for milestone in spec.lr_milestones)
    return float(spec.lr * warmup * spec.lr_decay**steps_down)


class EpochTrainer:
    """Trains a classifier epoch by epoch; holds what stays on the device between epochs.

    ``stream`` is None where this trial never replaces a sample: fraction 0, no class below the threshold, or no epoch
    after the switch. ``average`` is None where the trained weights themselves are evaluated.
    """

    def __init__(
        self, spec: TrialSpec, dataset: Dataset, stream: DrawStream | None, model: Classifier, compute: Compute
    ) -> None:
        """Put the model and the training images on the device.

        Raises:
            SpecError: the soft threshold is not above the smallest class's size, or the true nuisance is not known.
            StreamError: the spec asks for augmentation and ``stream`` is None.
        """
        sizes, train = dataset.class_sizes, dataset.train
        check_threshold(spec.threshold, spec.threshold_kind, sizes)
        check_true_nuisance(spec, dataset.nuisance)
        self._spec, self._dataset, self._sizes, self._compute = spec, dataset, sizes, compute
        self._labels = train.labels
        self._images = from_dlpack(train.clean if spec.true_nuisance else train.images).to(compute.device)
        self._pipeline = Pipeline(spec, dataset, compute.device)
        self._eligible = eligible_classes(sizes, spec.threshold, spec.threshold_kind) & (sizes > 0)
        self.stream = self._needed_stream(stream)
        self.model = move(model, compute.device)
        self.average = WeightAverage(self.model, spec.ema_decay) if spec.ema_decay else None
        self._forward = compiled(self.model, spec.batch_size) if spec.compile else self.model
        # Fused: one pass over the weights a step instead of five.
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=True
        )

    @property
    def classifier(self) -> Classifier:
        """What is evaluated after an epoch: the average of the weights where there is one, else ``model``."""
        return self.model if self.average is None else self.average.classifier

    def _needed_stream(self, stream: DrawStream | None) -> DrawStream | None:
        spec = self._spec
        if spec.fraction == 0 or spec.switch_epoch >= spec.epochs or not self._eligible.any():
            return None
        if stream is None:
            raise StreamError(
                f"augmentation needs a stream of draws, but trial.fraction = {spec.fraction:g} came without one; "
                "give a stream or set trial.fraction to 0"
            )
        return stream

    def run(self, epoch: int) -> EpochResult:
        """Train one epoch, counted from 1; all its randomness is named by the trial's seed and the epoch.

        Raises:
            TrialFailedError: a loss is not finite (the message has epoch and step, both counted from 1), or the network
                cannot be compiled here.
            StreamError: the stream cannot deliver.
        """
        started = time.perf_counter()
        stream = self._open_stream(epoch)
        waited, generated = (stream.waited_s, stream.generated) if stream else (0.0, 0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self._spec, epoch)
        self.model.train()
        rows = epoch_rows(self._spec, self._labels, self._sizes, epoch)
        losses, correct, draws = self._steps(epoch, rows, stream)
        return EpochResult(
            loss=self._mean_loss(losses, len(rows), epoch),
            accuracy=int(correct) / len(rows),
            draws=draws,
            train_s=time.perf_counter() - started,
            waiting_s=stream.waited_s - waited if stream else 0.0,
            generated=stream.generated - generated if stream else 0,
        )

    def announce_draws(self) -> None:
        """Tell the stream how many draws of each class training takes to its end."""
        if self.stream is not None:
            self.stream.plan(draws_needed(self._spec, self._labels, self._sizes))

    def _open_stream(self, epoch: int) -> DrawStream | None:
        """Return the stream if this epoch draws from it; announce the first draws one epoch earlier."""
        if self.stream is None or epoch < self._spec.switch_epoch:
            return None
        self.stream.prefetch(np.flatnonzero(self._eligible))
        return self.stream if epoch > self._spec.switch_epoch else None

    def _steps(self, epoch: int, rows: NDArray[np.int64], stream: DrawStream | None) -> tuple[Tensor, Tensor, int]:
        """Return the loss of each step ``[steps]`` and the number of correct answers, on the device, and of draws."""
        spec, device = self._spec, self._compute.device
        labels = self._labels[rows]
        rows_there, labels_there = torch.from_numpy(rows).to(device), torch.from_numpy(labels).to(device)
        nuisance_of = epoch_nuisance(spec, self._dataset, epoch, len(rows), device)
        inputs_of = self._pipeline.epoch(epoch, len(rows))
        replaced = replaced_rows(spec, labels, self._sizes, epoch)
        loss_of = build_loss(spec, self._sizes, epoch, device)
        blend = epoch_mixup(spec, epoch, len(rows), device)
        losses, correct = [], torch.zeros((), dtype=torch.int64, device=device)
        for start in range(0, len(rows), spec.batch_size):
            stop = min(start + spec.batch_size, len(rows))
            images = nuisance_of(self._images[rows_there[start:stop]], start)
            if stream is not None:
                _mix(images, labels[start:stop], replaced[start:stop], stream)
            inputs, blended_loss = blend(inputs_of(images, start), loss_of, start)
            loss, logits = self._step(inputs, labels_there[start:stop], blended_loss)
            losses.append(loss)
            correct += (logits.argmax(1) == labels_there[start:stop]).sum()
        return torch.stack(losses), correct, int(replaced.sum())

    def _step(self, inputs: Tensor, labels: Tensor, loss_of: Loss) -> tuple[Tensor, Tensor]:
        with self._compute.autocast():
            logits = self._forward(inputs)
        loss = loss_of(logits, labels)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        return loss.detach(), logits.detach()

    def _mean_loss(self, losses: Tensor, count: int, epoch: int) -> float:
        values = losses.cpu().double()
        wrong = (~values.isfinite()).nonzero()
        if len(wrong):
            step = int(wrong[0])
            raise TrialFailedError(f"loss became {float(values[step])} in epoch {epoch}, step {step + 1}")
        sizes = torch.full_like(values, self._spec.batch_size)
        sizes[-1] = count - self._spec.batch_size * (len(values) - 1)
        return float((values * sizes).sum() / count)


def _mix(images: Tensor, labels: NDArray[np.int64], replaced: NDArray[np.bool_], stream: DrawStream) -> None:
    """Replace samples of the batch by draws of their class, in place."""
    places = np.flatnonzero(replaced)
    if len(places):
        drawn = torch.from_numpy(stream.take(labels[places])).to(images.device, non_blocking=True)
        images[torch.from_numpy(places).to(images.device, non_blocking=True)] = drawn
