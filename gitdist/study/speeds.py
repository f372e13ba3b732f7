"""Measures how fast this machine trains a study's generator and its trials, in a second for small networks.

A few steps of each run with the threads of its share. They have their own networks and leave nothing behind.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, set_threads
from gitdist.generator.kinds import at_data_size, find_artifact
from gitdist.generator.munit.batches import BalancedBatches
from gitdist.generator.munit.generator import MunitGenerator
from gitdist.generator.munit.training import MunitTrainer
from gitdist.networks.classifier import to_device
from gitdist.spec import MunitSpec, StudySpec, TrialSpec
from gitdist.store import Store
from gitdist.trial.augmentation import InputPipeline
from gitdist.trial.checkpoint import fresh_classifier
from gitdist.trial.optimization import Optimization
from gitdist.trial.plan import build_loss

_MEASURED_S = 0.1  # of steps, after one to warm up
_MAX_STEPS = 3
_SLOW_S = 5.0  # a first step that takes longer is not repeated
_DRAWS = 64  # at once, as in most streams
_BATCH_PIXELS = 128 * 32 * 32  # of a batch on a CPU; larger ones take in proportion


@dataclass(frozen=True, kw_only=True)
class Speeds:
    """Seconds per unit of work on this machine; 0 for what is not needed, or already there."""

    per_step: float = 0.0  # of the generator's training
    per_draw: float = 0.0
    per_sample: float = 0.0  # of a trial's training


def measure_speeds(spec: StudySpec, directory: Path, store: Store) -> Speeds:
    """Return the speeds of MUNIT, if the study trains one, and of a trial as in ``trial``, if there are trials.

    Args:
        spec: of the study, with a number for each ``gpu: auto``.
        directory: of its prepared data set.
        store: which may have the generator.

    Raises:
        SpecError: the generator's settings do not fit the images.
    """
    dataset, threads = Dataset.open(directory), torch.get_num_threads()
    try:
        per_step, per_draw = 0.0, 0.0
        if isinstance(spec.generator, MunitSpec):
            per_step, per_draw = _measure_munit(spec, spec.generator, dataset, store)
        share = spec.resources.trial
        set_threads(share.cpu)
        compute = Compute.resolve(spec.trial.precision, share.device)
        per_sample = _seconds_per_sample(spec.trial, dataset, compute) if spec.search.total else 0.0
        return Speeds(per_step=per_step, per_draw=per_draw, per_sample=per_sample)
    finally:
        torch.set_num_threads(threads)


def _measure_munit(spec: StudySpec, munit: MunitSpec, dataset: Dataset, store: Store) -> tuple[float, float]:
    """Return the seconds per training step, 0 if the store has the generator, and per draw."""
    training, serving = spec.resources.training, spec.resources.server
    compute = Compute.resolve(munit.precision, training.device)
    is_trained = find_artifact(munit, dataset, store, compute) is not None
    batch_size = _batch_size(munit.batch_size, dataset, compute)
    measured = munit.model_copy(update={"batch_size": batch_size})
    batches = BalancedBatches(dataset.train.images, dataset.train.labels, measured, compute)
    trainer, steps = MunitTrainer(measured, batches, dataset.image_shape[0], compute), itertools.count()
    per_step = 0.0
    if not is_trained:
        set_threads(training.cpu)
        per_step = _seconds(lambda: trainer.step(next(steps)), compute) * munit.batch_size / batch_size
    if not spec.search.total:
        return per_step, 0.0
    set_threads(serving.cpu)
    compute = Compute.resolve(spec.stream.precision, serving.device)
    generator = at_data_size(munit, MunitGenerator(trainer.auto_encoders[0], munit.style_dim, compute), dataset)
    num_draws = _batch_size(_DRAWS, dataset, compute)
    images, rng = torch.tensor(dataset.train.images[:num_draws]), np.random.default_rng(0)
    codes = generator.encode(images, images)
    return per_step, _seconds(lambda: generator.draw(codes, rng), compute) / len(images)


def _seconds_per_sample(spec: TrialSpec, dataset: Dataset, compute: Compute) -> float:
    """Return the seconds that a training step takes per sample, without the draws of a generator."""
    batch_size = max(2, _batch_size(spec.batch_size, dataset, compute))
    images = torch.tensor(dataset.train.images[:batch_size]).to(compute.device)
    labels = torch.tensor(dataset.train.labels[:batch_size]).to(compute.device)
    model = to_device(fresh_classifier(spec, dataset), compute.device)
    inputs_of = InputPipeline(spec, dataset, compute.device).for_epoch(1, len(images))
    loss_of = build_loss(spec, dataset.class_sizes, 1, compute.device)
    optimization = Optimization(spec, model)
    optimization.begin_epoch(spec.epochs)  # the first ones may train the head alone

    def step() -> None:
        with compute.autocast():
            logits = model(inputs_of(images, 0))
        optimization.learn(loss_of(logits, labels), 0, len(images))

    return _seconds(step, compute) / len(images)


def _batch_size(batch_size: int, dataset: Dataset, compute: Compute) -> int:
    """Return the size of a batch that takes about a second at most."""
    if compute.device.type != "cpu":
        return batch_size
    _, height, width = dataset.image_shape
    return max(1, min(batch_size, _BATCH_PIXELS // (height * width)))


def _seconds(step: Callable[[], object], compute: Compute) -> float:
    """Return the seconds of a step: the fastest one after one to warm up, or that one if it is slow."""

    def timed() -> float:
        started = time.perf_counter()
        step()
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
        return time.perf_counter() - started

    if (first := timed()) > _SLOW_S:
        return first
    times = [timed()]
    while len(times) < _MAX_STEPS and sum(times) < _MEASURED_S:
        times.append(timed())
    return min(times)
