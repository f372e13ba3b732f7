"""One trial: a classifier trained epoch by epoch, resumable at every epoch, with a row of metrics for each.

    sampler -> indices of the epoch -> batch of images [N, C, H, W] on the device
            -> oracle: the untransformed images under fresh draws of the true nuisance
            -> Algorithm 1: some of them become draws of the stream (K, p) -> crop, flip, RandAugment, normalise
            -> mixup -> loss with class weights -> SGD step -> EMA of the weights
    epoch ends -> evaluation -> checkpoint (state and rows) -> row

Every random choice is named by trial seed and epoch, so a resumed trial computes what an uninterrupted one does, bit
for bit on a processor. Until ``switch_epoch`` nothing reads the sampler, K, p, deferred weights or the stream.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack

from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.errors import SpecError, StreamError, TrialFailedError
from gitdist.networks.classifier import compiled, to_device
from gitdist.networks.pretrained import WeightsFile
from gitdist.spec import TrialSpec
from gitdist.stream.draw_stream import DrawStream
from gitdist.trial.augmentation import InputPipeline, epoch_mixup, epoch_nuisance, layer_randomness
from gitdist.trial.checkpoint import Checkpoint, fresh_classifier, load_checkpoint, save_checkpoint
from gitdist.trial.ema import EMA
from gitdist.trial.epoch_row import EpochRow
from gitdist.trial.evaluation import EkldSet, evaluate
from gitdist.trial.mixing import augmented_classes, draws_needed, replaced_samples
from gitdist.trial.plan import build_loss, epoch_indices, learning_rate


@dataclass(frozen=True, kw_only=True)
class TrialSetting:
    """What a trial runs with, apart from its spec and data.

    Attributes:
        compute: device and precision.
        stream: the trial's own position in a stream of draws, at its start; None only if nothing is augmented.
        ekld: pairs that validation eKLD is measured on; None = not measured.
        directory: where checkpoints are kept; None = nowhere.
        check: called before each checkpoint, and while the trial waits for another; what it raises ends training, and
            that checkpoint is not written.
        evaluation_every: epochs between evaluations; the spec's last epoch is always evaluated.
        stop_after: last epoch to train now; None = the spec's. Training up to the switch gives a checkpoint from which
            every trial that differs in sampler, K and p alone can resume.
        trained_by: the trial that the rows name as their trainer; None = they name none.
        weights: the pretrained weights that ``trial.pretrained`` asks for; None only if it is false.
    """

    compute: Compute
    stream: DrawStream | None = None
    ekld: EkldSet | None = None
    directory: Path | None = None
    check: Callable[[], None] | None = None
    evaluation_every: int = 1
    stop_after: int | None = None
    trained_by: str | None = None
    weights: WeightsFile | None = None


def train(spec: TrialSpec, dataset: Dataset, setting: TrialSetting) -> Iterator[EpochRow]:
    """Train a classifier and yield the row of each epoch once its checkpoint is written.

    Resumes as ``resume_training`` does; the rows up to there are not yielded again. Test images are never read.

    Raises:
        SpecError: the soft threshold is not above the smallest class's size, the true nuisance is not known, or the
            network or its pretrained weights do not fit.
        StreamError: the spec asks for augmentation without a stream, or the stream cannot deliver.
        TrialFailedError: a loss or the classifier's output is not finite, or the network cannot be compiled here.
        DiskError: the disk does not take a checkpoint; all older ones are still there.
    """
    yield from resume_training(spec, dataset, setting)[1]


def resume_training(
    spec: TrialSpec, dataset: Dataset, setting: TrialSetting, *, announce: bool = True
) -> tuple[list[EpochRow], Iterator[EpochRow]]:
    """Return the rows up to the newest whole checkpoint of the setting's directory, and ``train`` from there on."""
    if spec.pretrained and setting.weights is None:
        raise SpecError(
            f"trial.pretrained is {spec.pretrained}, but the trial came without weights; give them or set it to false"
        )
    model = fresh_classifier(spec, dataset, setting.weights)
    trainer = EpochTrainer(spec, dataset, setting.stream, model, setting.compute)
    checkpoint = load_checkpoint(setting.directory) if setting.directory else None
    if checkpoint:
        trainer.restore(checkpoint)
    if announce and trainer.stream is not None:
        trainer.stream.plan(draws_needed(spec, dataset.train.labels, dataset.class_sizes))
    rows = checkpoint.rows if checkpoint else []
    return list(rows), _train_epochs(trainer, rows, spec, dataset, setting)


def _train_epochs(
    trainer: "EpochTrainer", rows: list[EpochRow], spec: TrialSpec, dataset: Dataset, setting: TrialSetting
) -> Iterator[EpochRow]:
    last = min(spec.epochs, setting.stop_after or spec.epochs)
    for epoch in range(len(rows) + 1, last + 1):
        with layer_randomness(spec, epoch, setting.compute.device):
            row = trainer.run(epoch)
        started = time.perf_counter()
        if epoch % setting.evaluation_every == 0 or epoch == spec.epochs:
            try:
                evaluation = evaluate(
                    trainer.classifier, dataset.validation, setting.ekld, dataset, setting.compute, spec
                )
            except TrialFailedError as failure:
                raise TrialFailedError(f"{failure} after epoch {epoch}") from failure
            row = replace(row, metrics=evaluation.metrics("val"), per_class=evaluation.per_class())
        evaluating_s = time.perf_counter() - started
        row = replace(row, evaluating_s=evaluating_s, ended_at=time.time(), trained_by=setting.trained_by)
        rows.append(row)
        if setting.directory:
            if setting.check:
                setting.check()
            save_checkpoint(setting.directory, trainer.checkpoint(rows))
        yield row


class EpochTrainer:
    """Trains a classifier epoch by epoch; holds what stays on the device between epochs.

    ``stream`` is None if this trial never replaces a sample, ``ema`` if the trained weights themselves are evaluated.
    """

    def __init__(
        self, spec: TrialSpec, dataset: Dataset, stream: DrawStream | None, model: nn.Module, compute: Compute
    ) -> None:
        """Put the model and the training images on the device.

        Raises:
            SpecError: the soft threshold is not above the smallest class's size.
            StreamError: the spec asks for augmentation and ``stream`` is None.
        """
        train, self._sizes = dataset.train, dataset.class_sizes
        self._spec, self._dataset, self._compute = spec, dataset, compute
        self._labels = train.labels
        self._images = from_dlpack(train.clean if spec.true_nuisance else train.images).to(compute.device)
        self._pipeline = InputPipeline(spec, dataset, compute.device)
        self._augmented = np.flatnonzero(augmented_classes(spec, self._sizes))
        if stream is None and len(self._augmented):
            raise StreamError(
                f"augmentation needs a stream of draws, but trial.fraction = {spec.fraction:g} came without one; "
                "give a stream or set trial.fraction to 0"
            )
        self.stream = stream if len(self._augmented) else None
        self.model = to_device(model, compute.device)
        self.ema = EMA(self.model, spec.ema_decay) if spec.ema_decay else None
        self._forward = compiled(self.model, spec.batch_size) if spec.compile else self.model
        # Fused: one pass over the weights per step instead of five.
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=True
        )

    @property
    def classifier(self) -> nn.Module:
        """What is evaluated after an epoch: the EMA of the weights if there is one, else ``model``."""
        return self.model if self.ema is None else self.ema.classifier

    def checkpoint(self, rows: list[EpochRow]) -> Checkpoint:
        """Return the state after the epoch of the last row."""
        drawn = np.zeros(self._dataset.num_classes, np.int64) if self.stream is None else self.stream.cursors
        return Checkpoint(
            epoch=len(rows),
            model=self.model.state_dict(),
            optimizer=self.optimizer.state_dict(),
            cursors=torch.from_numpy(drawn),
            rows=rows,
            average=None if self.ema is None else self.ema.state_dict(),
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Return to the state of a checkpoint."""
        self.model.load_state_dict(checkpoint.model)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        if self.ema is not None and checkpoint.average:
            self.ema.load_state_dict(checkpoint.average)
        if self.stream is not None:
            self.stream.cursors = checkpoint.cursors.numpy()

    def run(self, epoch: int) -> EpochRow:
        """Train one epoch, counted from 1, and return its row without evaluation.

        Nothing in it waits for the device before the losses are read at its end.

        Raises:
            TrialFailedError: a loss is not finite (the message has epoch and step, both counted from 1), or the network
                cannot be compiled here.
            StreamError: the stream cannot deliver.
        """
        started = time.perf_counter()
        spec, device = self._spec, self._compute.device
        stream = self._open_stream(epoch)
        waited_s, generated = (stream.waited_s, stream.generated) if stream else (0.0, 0)
        lr = learning_rate(spec, epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.model.train()
        indices = epoch_indices(spec, self._labels, self._sizes, epoch)
        labels, num_samples = self._labels[indices], len(indices)
        replaced = replaced_samples(spec, labels, self._sizes, epoch)
        indices_there, labels_there = torch.from_numpy(indices).to(device), torch.from_numpy(labels).to(device)
        nuisance_of = epoch_nuisance(spec, self._dataset, epoch, num_samples, device)
        inputs_of = self._pipeline.for_epoch(epoch, num_samples)
        loss_of = build_loss(spec, self._sizes, epoch, device)
        blend = epoch_mixup(spec, epoch, num_samples, device)
        losses, correct = [], torch.zeros((), dtype=torch.int64, device=device)
        for start in range(0, num_samples, spec.batch_size):
            batch = slice(start, start + spec.batch_size)
            images = nuisance_of(self._images[indices_there[batch]], start)
            if stream is not None and len(samples := np.flatnonzero(replaced[batch])):
                drawn = torch.from_numpy(stream.take(labels[batch][samples])).to(device, non_blocking=True)
                images[torch.from_numpy(samples).to(device, non_blocking=True)] = drawn
            inputs, blended_loss = blend(inputs_of(images, start), loss_of, start)
            with self._compute.autocast():
                logits = self._forward(inputs)
            loss = blended_loss(logits, labels_there[batch])
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.optimizer.step()
            if self.ema is not None:
                self.ema.update()
            losses.append(loss.detach())
            correct += (logits.detach().argmax(1) == labels_there[batch]).sum()
        return EpochRow(
            epoch=epoch,
            lr=lr,
            loss=_mean_loss(torch.stack(losses), spec.batch_size, num_samples, epoch),
            accuracy=int(correct) / num_samples,
            draws=int(replaced.sum()),
            generated=stream.generated - generated if stream else 0,
            train_s=time.perf_counter() - started,
            waiting_s=stream.waited_s - waited_s if stream else 0.0,
            evaluating_s=0.0,
        )

    def _open_stream(self, epoch: int) -> DrawStream | None:
        """Return the stream if this epoch draws from it; request the first blocks one epoch earlier."""
        if self.stream is None or epoch < self._spec.switch_epoch:
            return None
        self.stream.prefetch(self._augmented)
        return self.stream if epoch > self._spec.switch_epoch else None


def _mean_loss(losses: Tensor, batch_size: int, num_samples: int, epoch: int) -> float:
    """Return the mean over samples of the losses of an epoch's steps ``[steps]``."""
    values = losses.cpu().double()
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        step = int(wrong[0])
        raise TrialFailedError(f"loss became {float(values[step])} in epoch {epoch}, step {step + 1}")
    sizes = torch.full_like(values, batch_size)
    sizes[-1] = num_samples - batch_size * (len(values) - 1)
    return float((values * sizes).sum() / num_samples)
