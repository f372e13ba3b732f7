"""One trial: a classifier trained epoch by epoch, resumable at every epoch, a row of measures each.

    sampler -> rows of the epoch -> batch of images [N, C, H, W] on the device
            -> oracle: the untransformed images under fresh draws of the true nuisance
            -> Algorithm 1: some of them become draws of the stream (K, p) -> crop, flip, RandAugment, normalise
            -> mixup -> loss with class weights -> SGD step -> average of the weights
    epoch ends -> evaluation -> checkpoint (state and rows) -> row

Every random choice is named by trial seed and epoch, so a resumed trial computes what an uninterrupted one does, bit
for bit on a processor. Until ``switch_epoch`` nothing reads the sampler, K, p, deferred weights or the stream.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.errors import StoreError, TrialFailedError
from gitdist.seeds import torch_rng
from gitdist.spec import TrialSpec
from gitdist.stream.draw_stream import DrawStream
from gitdist.trial.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from gitdist.trial.classifier import Classifier, build_classifier, move
from gitdist.trial.epoch import EpochResult, EpochTrainer, learning_rate
from gitdist.trial.evaluation import EkldSet, Evaluation, evaluate

EpochRow = dict[str, Any]
"""One epoch as JSON values: ``epoch`` (from 1), ``lr``, ``train/loss``, ``train/accuracy``, ``draws`` (augmented
images), ``train_s`` with its part ``waiting_s``, ``evaluating_s``, ``generated`` (images made in this very process, not
by a stream that all trials read); on evaluated epochs the metrics ``val/...`` and the lists per class, such as
``val/accuracy_per_class`` (see ``Evaluation.per_class``); ``ended_at`` (unix time in seconds) and, where it was given,
``trained_by``."""


@dataclass(frozen=True, kw_only=True)
class TrialSetting:
    """What a trial runs with, apart from its spec and data.

    Attributes:
        compute: device and precision.
        stream: the trial's own place in a stream of draws, at its start; None only where nothing is augmented.
        ekld: pairs that validation eKLD is measured on; None = not measured.
        directory: where checkpoints are kept; None = nowhere.
        check: called before each checkpoint, and while the trial waits for another; what it raises ends training, and
            that checkpoint is not written.
        evaluation_every: epochs between evaluations; the spec's last epoch is always evaluated.
        stop_after: last epoch to train now; None = the spec's. Training up to the switch gives a checkpoint from which
            every trial that differs in sampler, K and p alone can go on.
        trained_by: what the rows say of who trained them; None = nothing.
    """

    compute: Compute
    stream: DrawStream | None = None
    ekld: EkldSet | None = None
    directory: Path | None = None
    check: Callable[[], None] | None = None
    evaluation_every: int = 1
    stop_after: int | None = None
    trained_by: str | None = None


def train(spec: TrialSpec, dataset: Dataset, setting: TrialSetting) -> Iterator[EpochRow]:
    """Train a classifier and yield the row of each epoch once its checkpoint is in place.

    Goes on as ``resume`` does; the rows up to there are not yielded again.

    Args:
        spec: the trial.
        dataset: the training and the validation rows; test rows are never read.
        setting: what it runs with.

    Raises:
        SpecError: the soft threshold is not above the smallest class's size, or the true nuisance is not known.
        StreamError: the spec asks for augmentation without a stream, or the stream cannot deliver.
        TrialFailedError: a loss or the classifier's output is not finite.
        DiskError: the disk does not take a checkpoint; the older ones are all there then.
    """
    yield from resume(spec, dataset, setting)[1]


def resume(
    spec: TrialSpec, dataset: Dataset, setting: TrialSetting, *, announce: bool = True
) -> tuple[list[EpochRow], Iterator[EpochRow]]:
    """Return the rows up to the newest whole checkpoint of the setting's directory, and ``train`` from there on.

    Args:
        spec: the trial.
        dataset: as for ``train``.
        setting: as for ``train``.
        announce: tell the stream at once how many draws training takes; not needed where it has been told.
    """
    trainer = EpochTrainer(spec, dataset, setting.stream, fresh_classifier(spec, dataset), setting.compute)
    checkpoint = load_checkpoint(setting.directory) if setting.directory else None
    if checkpoint:
        _restore(trainer, checkpoint)
    if announce:
        trainer.announce_draws()
    rows = checkpoint.rows if checkpoint else []
    return list(rows), _go_on(trainer, rows, spec, dataset, setting)


def _go_on(
    trainer: EpochTrainer, rows: list[EpochRow], spec: TrialSpec, dataset: Dataset, setting: TrialSetting
) -> Iterator[EpochRow]:
    last = min(spec.epochs, setting.stop_after or spec.epochs)
    for epoch in range(len(rows) + 1, last + 1):
        result = trainer.run(epoch)
        due = epoch % setting.evaluation_every == 0 or epoch == spec.epochs
        started = time.perf_counter()
        evaluation = _validate(trainer.classifier, dataset, setting, epoch) if due else None
        row = _row(epoch, learning_rate(spec, epoch), result, evaluation, time.perf_counter() - started)
        rows.append(row if setting.trained_by is None else row | {"trained_by": setting.trained_by})
        if setting.directory:
            if setting.check:
                setting.check()
            save_checkpoint(setting.directory, _state(trainer, dataset.num_classes, rows))
        yield rows[-1]


def load_classifier(spec: TrialSpec, dataset: Dataset, directory: Path, compute: Compute) -> Classifier:
    """Return the classifier of a trial after its last epoch, in evaluation mode on the device of ``compute``.

    Its weights are the averaged ones where the trial keeps an average.

    Args:
        spec: the trial.
        dataset: its channels and classes shape the network.
        directory: the trial's checkpoints.
        compute: where it will run.

    Raises:
        StoreError: there is no whole checkpoint of the last epoch.
    """
    checkpoint = load_checkpoint(directory)
    if checkpoint is None or checkpoint.epoch < spec.epochs:
        found = f"only one of epoch {checkpoint.epoch}" if checkpoint else "none"
        raise StoreError(
            f"a trained classifier needs a whole checkpoint of epoch {spec.epochs}, but {directory} has {found}; "
            "train on"
        )
    model = fresh_classifier(spec, dataset)
    model.load_state_dict(checkpoint.average["classifier"] if checkpoint.average else checkpoint.model)
    return move(model, compute.device).eval()


def fresh_classifier(spec: TrialSpec, dataset: Dataset) -> Classifier:
    """Return the classifier that a trial begins with, on the CPU."""
    return build_classifier(
        spec.network,
        dataset.image_shape[0],
        dataset.num_classes,
        spec.loss == "ldam",
        scale=spec.ldam_scale,
        rng=torch_rng(spec.seed, "trial/weights"),
    )


def _restore(trainer: EpochTrainer, checkpoint: Checkpoint) -> None:
    trainer.model.load_state_dict(checkpoint.model)
    trainer.optimizer.load_state_dict(checkpoint.optimizer)
    if trainer.average is not None and checkpoint.average:
        trainer.average.restore(checkpoint.average)
    if trainer.stream is not None:
        trainer.stream.cursors = checkpoint.cursors.numpy()


def _state(trainer: EpochTrainer, num_classes: int, rows: list[EpochRow]) -> Checkpoint:
    stream = trainer.stream
    return Checkpoint(
        epoch=len(rows),
        model=trainer.model.state_dict(),
        optimizer=trainer.optimizer.state_dict(),
        cursors=torch.zeros(num_classes, dtype=torch.int64) if stream is None else torch.from_numpy(stream.cursors),
        rows=rows,
        average=None if trainer.average is None else trainer.average.state(),
    )


def _validate(model: Classifier, dataset: Dataset, setting: TrialSetting, epoch: int) -> Evaluation:
    try:
        return evaluate(model, dataset.validation, setting.ekld, dataset, setting.compute)
    except TrialFailedError as failure:
        raise TrialFailedError(f"{failure} after epoch {epoch}") from failure


def _row(epoch: int, lr: float, result: EpochResult, evaluation: Evaluation | None, evaluating_s: float) -> EpochRow:
    row: EpochRow = {"epoch": epoch, "lr": lr, "train/loss": result.loss, "train/accuracy": result.accuracy}
    if evaluation is not None:
        row |= evaluation.metrics("val")
        row |= {f"val/{name}": values for name, values in evaluation.per_class().items()}
    times = {"train_s": result.train_s, "waiting_s": result.waiting_s, "evaluating_s": evaluating_s}
    return row | {"draws": result.draws, "generated": result.generated} | times | {"ended_at": time.time()}
