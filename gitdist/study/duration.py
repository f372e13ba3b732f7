"""Estimates how long a study will take before it begins, and asks if that is more than a day.

What a study asks for is counted: steps of the generator, draws, samples of the trials. Each takes as long as
``measure_speeds`` finds on this machine. Trials that the search will stop early, and other networks that it tries, are
not known beforehand.
"""

import math
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import torch

from gitdist.child_process import ChildProcess
from gitdist.data.dataset import Dataset
from gitdist.durations import DAY_S, format_duration
from gitdist.errors import GitdistError, StudyError
from gitdist.limits import usable_cpus
from gitdist.spec import MunitSpec, StudySpec
from gitdist.store import Store
from gitdist.study.cluster.connect import LOCAL, local_cpus, ray_address
from gitdist.study.monitoring.display import Display
from gitdist.study.scheduling.gpu_shares import share_gpus
from gitdist.study.scheduling.packing import Capacity, Node, find_capacity
from gitdist.study.speeds import Speeds, measure_speeds
from gitdist.trial.mixing import draws_needed
from gitdist.trial.stages import shared_prefix

_FORWARD_PART = 1 / 3  # of a training step: evaluation needs no gradients
# What is measured in this process; larger networks in a child process, whose memory is free again afterwards.
_SMALL_SIDE, _SMALL_CHANNELS, _SMALL_BATCH = 64, 512, 512


@dataclass(frozen=True, kw_only=True)
class Duration:
    """The estimated seconds of a study's generator and of all of its trials, ``max_concurrent`` at once.

    ``limit_s`` is ``search.max_hours`` in seconds; with ``may_stop`` another rule may stop the search before its total.
    ``is_busy``: other programs used the CPUs when the speeds were measured. The first ``prefix_epochs`` are trained
    once for all trials that agree on them.
    """

    generator_s: float
    trials_s: float
    num_trials: int
    max_concurrent: int
    on_cluster: bool
    limit_s: float = math.inf
    may_stop: bool = False
    is_busy: bool = False
    prefix_epochs: int = 0

    @property
    def total_s(self) -> float:
        """Seconds of the whole study, without those for which trials that have started exceed ``limit_s``."""
        return min(self.generator_s + self.trials_s, self.limit_s)

    def describe(self) -> str:
        """Return the estimate in one line."""
        parts = [f"generator {format_duration(self.generator_s)}"] if self.generator_s else []
        if self.num_trials:
            parts.append(f"{self.num_trials} trial(s) {format_duration(self.trials_s)}, {self.max_concurrent} at once")
        about = "at most about" if self.may_stop or self.total_s == self.limit_s else "about"
        where = "the cluster, at the speed of this machine" if self.on_cluster else "this machine"
        if self.is_busy:
            parts.append("measured while other programs use its CPUs: when it is idle, less")
        total = format_duration(self.total_s)
        return f"the study takes {about} {total} on {where} ({'; '.join(parts) or 'nothing to train'})"


def announce_duration(
    spec: StudySpec,
    dataset: Dataset,
    store: Store,
    address: str | None,
    display: Display,
    confirm: Callable[[str], None] | None,
) -> None:
    """Log how long a study that has not begun will take.

    Args:
        spec: of the study.
        dataset: its data set.
        store: which may have its generator.
        address: of the cluster; None = ``$RAY_ADDRESS``, else this machine.
        display: receives the line, and shows the time left until an epoch is done.
        confirm: receives the line too if it is more than a day; what it raises ends the study. None = nobody is asked.

    Raises:
        SpecError: the generator's settings do not fit the images.
    """
    try:
        duration = measure_duration(spec, dataset, store, address)
    except GitdistError:
        raise
    except Exception as error:  # the study itself reports it, if it is one
        display.log(f"how long the study takes cannot be measured ({type(error).__name__})")
        return
    display.log(duration.describe())
    display.expect(duration.total_s)
    if confirm is not None and duration.total_s > DAY_S:
        with display.paused():
            confirm(duration.describe())


def measure_duration(spec: StudySpec, dataset: Dataset, store: Store, address: str | None = None) -> Duration:
    """Return how long a study will take at the speeds that are measured now.

    Arguments are those of ``announce_duration``. Besides errors of this package, torch and the networks may raise any.
    """
    on_cluster = ray_address(address) != LOCAL
    here = with_local_shares(spec)
    max_concurrent = 1
    with suppress(StudyError):  # for a cluster, or reported when the study begins
        max_concurrent = local_capacity(here).max_concurrent
    if on_cluster:
        bound = spec.resources.max_concurrent
        max_concurrent = spec.num_trials if bound == "auto" else bound
    is_busy = os.getloadavg()[0] > usable_cpus()
    if _is_small(here, dataset):
        speeds = measure_speeds(here, dataset.directory, store)
    else:
        with ChildProcess(measure_speeds.__module__) as child:
            speeds = child.call("this machine must measure its speed", measure_speeds, here, dataset.directory, store)
    duration = estimate_duration(spec, dataset, speeds, max_concurrent, on_cluster=on_cluster)
    return replace(duration, is_busy=is_busy)


def estimate_duration(
    spec: StudySpec, dataset: Dataset, speeds: Speeds, max_concurrent: int, *, on_cluster: bool = False
) -> Duration:
    """Return how long a study takes at these speeds with ``max_concurrent`` trials at once."""
    steps = spec.generator.steps if isinstance(spec.generator, MunitSpec) else 0
    trials, max_concurrent = spec.num_trials, max(1, min(spec.num_trials, max_concurrent))
    trial, evaluation, search = spec.trial, spec.evaluation, spec.search
    evaluated = len(dataset.validation.labels) + (
        dataset.num_classes * evaluation.epoch_images_per_class * (1 + evaluation.epoch_transformations)
    )
    samples = len(dataset.train.labels) + _FORWARD_PART * evaluated / evaluation.every
    epochs = _longest(spec)
    prefix = shared_prefix(trial) if spec.sharing.prefix else None
    own_epochs = epochs - min(prefix.epochs, epochs) if prefix else epochs
    rounds = math.ceil(trials / max_concurrent)
    trials_s = speeds.per_sample * samples * (epochs - own_epochs + rounds * own_epochs)
    draws_s = speeds.per_draw * _draws_per_epoch(spec, dataset) * max(0, epochs - trial.switch_epoch)
    if spec.sharing.stream:  # made while the trials train, once for all of them
        trials_s = max(trials_s, draws_s / spec.resources.servers)
    else:
        trials_s += rounds * draws_s
    return Duration(
        generator_s=speeds.per_step * steps,
        trials_s=trials_s if trials else 0.0,
        num_trials=trials,
        max_concurrent=max_concurrent,
        on_cluster=on_cluster,
        limit_s=math.inf if search.max_hours is None else 3600 * search.max_hours,
        may_stop=search.may_stop,
        prefix_epochs=epochs - own_epochs if trials else 0,
    )


def with_local_shares(spec: StudySpec) -> StudySpec:
    """Return the study with the shares of GPUs that its processes have on this machine."""
    resources = share_gpus([_this_machine(spec)], spec.resources, spec.num_servers, spec.num_trials)
    return spec.model_copy(update={"resources": resources})


def local_capacity(spec: StudySpec) -> Capacity:
    """Return how many trials of a study with ``with_local_shares`` run at once on this machine.

    Raises:
        StudyError: none fits.
    """
    return find_capacity([_this_machine(spec)], spec.resources, spec.num_servers)


def _this_machine(spec: StudySpec) -> Node:
    return Node("here", local_cpus(spec.resources, spec.num_servers), [1.0] * torch.cuda.device_count())


def _is_small(spec: StudySpec, dataset: Dataset) -> bool:
    resources, munit = spec.resources, spec.generator
    shares = (resources.server, resources.trial, resources.training)
    if torch.cuda.is_available() and any(share.num_gpus for share in shares):
        return False
    if max(dataset.image_shape[1:]) > _SMALL_SIDE or ":" in spec.trial.network:
        return False
    if not isinstance(munit, MunitSpec):
        return True
    channels = (munit.dim * 2**munit.num_downsample, munit.discriminator_dim * 2 ** (munit.discriminator_layers - 1))
    return max(channels) <= _SMALL_CHANNELS and munit.batch_size <= _SMALL_BATCH


def _longest(spec: StudySpec) -> int:
    """Return the epochs of the longest trial that the study may train."""
    searched = spec.search.space.get("epochs")
    found = [] if searched is None else list(searched.extremes)
    if searched is None or searched.when:
        found += [fields.get("epochs", spec.trial.epochs) for fields in spec.methods.values() or [{}]]
    if spec.baseline:
        found.append(spec.trial.epochs)
    return max(int(epochs) for epochs in found if isinstance(epochs, int | float))


def _draws_per_epoch(spec: StudySpec, dataset: Dataset) -> int:
    """Return the number of draws in the first augmented epoch of a trial with the settings of ``trial``."""
    switch = spec.trial.switch_epoch
    trial = spec.trial.model_copy(update={"epochs": switch + 1})
    return int(draws_needed(trial, dataset.train.labels, dataset.class_sizes).sum())
