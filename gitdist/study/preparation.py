"""The generator of a study, trained as a Ray task that can be killed and goes on from its last checkpoint.

driver <--a stream of training steps-- task: thread that trains --queue--> the task's generator function
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from gitdist.compute import Compute, set_threads
from gitdist.data.dataset import Dataset
from gitdist.errors import GitdistError, StudyError, TrialFailure
from gitdist.generator.artefact import generator_artefact
from gitdist.generator.training import TrainingStep
from gitdist.spec import GeneratorSpec, Share
from gitdist.store import Store


@dataclass(frozen=True)
class TrainedGenerator:
    """The generator's artefact (None where nothing is trained) and the seconds spent on getting it."""

    artefact: Path | None
    training_s: float


def obtain_generator(
    spec: GeneratorSpec, dataset: Dataset, store: Store, share: Share, on_step: Callable[[TrainingStep], None]
) -> TrainedGenerator:
    """Return the trained generator, from the store or trained on the cluster with ``share`` of it.

    Args:
        spec: the generator.
        dataset: what it is trained on.
        store: where trained generators are kept.
        share: CPUs and GPUs of the training task.
        on_step: told of training steps, here on the driver.

    Raises:
        StudyError: training diverged.
    """
    if spec.kind != "munit":
        return TrainedGenerator(None, 0.0)
    started = time.perf_counter()
    options: dict[str, Any] = {
        "num_cpus": share.cpu,
        "num_gpus": share.gpu,
        "num_returns": "streaming",
        "max_retries": 3,
    }
    task: Any = ray.remote(**options)(_train)
    artefact: Path | None = None
    try:
        for reference in task.remote(spec, dataset.directory, store.root, share.cpu):
            item = ray.get(reference)
            if isinstance(item, Path):
                artefact = item
            else:
                on_step(item)
    except RayTaskError as error:
        raise _for_the_user(error) from None
    return TrainedGenerator(artefact, time.perf_counter() - started)


def _train(spec: GeneratorSpec, dataset: Path, store: Path, num_cpus: float) -> Iterator[TrainingStep | Path]:
    """Yield the training steps that are reported, then the artefact's directory."""
    steps: queue.SimpleQueue[TrainingStep | Path | BaseException] = queue.SimpleQueue()

    def build() -> None:
        try:
            set_threads(num_cpus)
            opened = Dataset.open(dataset)
            artefact = generator_artefact(spec, opened, Store(store), steps.put, Compute.resolve())
            steps.put(artefact or StudyError(f"generator.kind '{spec.kind}' has nothing to train"))
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


def _for_the_user(error: RayTaskError) -> Exception:
    cause = error.cause
    if isinstance(cause, GitdistError):
        return cause
    if isinstance(cause, TrialFailure):
        return StudyError(
            f"training the generator failed: {cause}; lower generator.lr or set generator.precision: float32"
        )
    return error
