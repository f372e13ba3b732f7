"""Trains a generator as a Ray task that can be killed and resumes from its last checkpoint.

driver <--training steps (a streaming task)-- generator function <--queue-- training thread

The driver first waits for free capacity, and reports the wait.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, limit_to_share
from gitdist.errors import StudyError, first_line
from gitdist.generator.base import TrainingStep
from gitdist.generator.kinds import find_artifact, needs_training, obtain_artifact
from gitdist.generator.munit.training import past_steps
from gitdist.spec import GeneratorSpec, PluginSpec, ResourcesSpec, Share
from gitdist.store import Store
from gitdist.stream.reservation import POLL_S, WaitReporter, reserve
from gitdist.study.cluster.connect import cluster_nodes
from gitdist.study.scheduling.packing import check_fits_alone
from gitdist.study.scheduling.tasks import to_user_error

_MAX_LOSSES = 3  # worker losses without a new training step in between

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedGenerator:
    """The generator's artifact (None if it has no weights) and the seconds that this process trained it.

    ``past_steps`` are samples of all its training steps, including those of earlier drivers.
    """

    artifact: Path | None
    training_s: float
    past_steps: Sequence[TrainingStep] = ()


def obtain_generator(
    spec: GeneratorSpec,
    dataset: Dataset,
    store: Store,
    resources: ResourcesSpec,
    on_step: Callable[[TrainingStep], None],
    on_wait: Callable[[float], None],
) -> TrainedGenerator:
    """Return the generator from the store, or train it on the cluster.

    Raises:
        StudyError: no node is large enough for training, or it diverged.
        SpecError: an imported file or a plugin cannot be read.
    """
    if not needs_training(spec):
        return TrainedGenerator(obtain_artifact(spec, dataset, store, on_step, Compute.resolve()), 0.0)
    share, start_s = resources.training, time.perf_counter()
    if artifact := find_artifact(spec, dataset, store, Compute.resolve(device=share.device)):
        return TrainedGenerator(artifact, 0.0, past_steps(artifact))
    check_fits_alone(cluster_nodes(), resources, "training", "train the generator")
    trained = _train_on_cluster(spec, share, (dataset.directory, store, share), on_step, on_wait)
    artifact = store.resolve_locally(trained)
    store.mark_used("generator", trained.name)  # this process uses it from here on
    return TrainedGenerator(artifact, time.perf_counter() - start_s, past_steps(artifact))


def _train_on_cluster(
    spec: GeneratorSpec,
    share: Share,
    arguments: tuple[Any, ...],
    on_step: Callable[[TrainingStep], None],
    on_wait: Callable[[float], None],
) -> Path:
    """Run ``_train``, again if a worker is lost; return the artifact's directory on its node."""
    # Ray's retry of a streaming task skips as many items as were read before, but a resumed training yields fewer.
    options: dict[str, Any] = {"num_returns": "streaming", "max_retries": 0}
    task: Any = ray.remote(num_cpus=share.cpu, num_gpus=share.num_gpus, **options)(_train)
    losses = last_step = 0
    while True:
        placement_group = reserve(share, 1, on_wait)
        try:
            pinned_task = task.options(scheduling_strategy=PlacementGroupSchedulingStrategy(placement_group))
            artifact = None
            # To its end: Ray reports a task that is cut short.
            for reference in _reporting_silence(pinned_task.remote(spec, *arguments), spec):
                item = ray.get(reference)
                if isinstance(item, Path):
                    artifact = item
                    continue
                if item.step > last_step:
                    losses, last_step = 0, item.step
                on_step(item)
            assert artifact is not None, "the last item is the artifact"
            return artifact
        except RayTaskError as error:
            remedy = "lower generator.lr or set generator.precision: float32"
            raise to_user_error(error, f"training the generator failed: {error.cause}; {remedy}") from None
        except RayError as error:
            losses += 1
            if losses == _MAX_LOSSES:
                raise _lost_error(
                    spec, f"{losses} times after training step {last_step} ({first_line(error)})"
                ) from None
        finally:
            remove_placement_group(placement_group)


def _reporting_silence(training: Any, spec: GeneratorSpec) -> Iterator[Any]:
    """Yield the references of a streaming task; log from time to time that a plugin reports no step."""

    def report(silent_s: float) -> None:
        if isinstance(spec, PluginSpec):
            _log.warning("generator.target '%s' has reported no training step for %.0f s", spec.target, silent_s)

    reporter = WaitReporter(report)
    while True:
        if not ray.wait([training], timeout=POLL_S, fetch_local=False)[0]:
            reporter.poll()
            continue
        try:
            yield next(training)
        except StopIteration:
            return
        reporter = WaitReporter(report)


def _lost_error(spec: GeneratorSpec, when: str) -> StudyError:
    if isinstance(spec, PluginSpec):
        return StudyError(
            f"generator.target '{spec.target}' must train, but the process that runs it ended {when}; fix it, or raise "
            "resources.training"
        )
    return StudyError(
        f"training the generator lost its worker {when}; raise resources.training, or lower generator.batch_size or dim"
    )


def _train(spec: GeneratorSpec, dataset: Path, store: Store, share: Share) -> Iterator[TrainingStep | Path]:
    """Yield the reported training steps, then the artifact's directory."""
    steps: queue.SimpleQueue[TrainingStep | Path | BaseException] = queue.SimpleQueue()

    def build() -> None:
        try:
            limit_to_share(share.cpu, share.num_gpus)
            opened = Dataset.open(store.resolve_locally(dataset))
            artifact = obtain_artifact(spec, opened, store, steps.put, Compute.resolve(device=share.device))
            assert artifact, "a trained generator has an artifact"
            steps.put(artifact)
        except BaseException as error:
            steps.put(error)

    threading.Thread(target=build, daemon=True).start()
    while True:
        item = steps.get()
        if isinstance(item, BaseException):
            raise item
        yield item
        if isinstance(item, Path):
            return
