"""The generator of a study, trained as a Ray task that can be killed and goes on from its last checkpoint.

driver <--a stream of training steps-- task: thread that trains --queue--> the task's generator function
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from gitdist.compute import Compute, set_threads
from gitdist.data.dataset import Dataset
from gitdist.errors import GitdistError, StudyError, TrialFailure
from gitdist.generator.artefact import find_generator, generator_artefact
from gitdist.generator.training import LOSSES_FILE, TrainingStep
from gitdist.spec import GeneratorSpec, Share
from gitdist.store import Store
from gitdist.study.cluster import check_training

_PAST_STEPS = 200  # of a generator found in the store


@dataclass(frozen=True)
class TrainedGenerator:
    """The generator's artefact (None where nothing is trained) and the seconds spent on getting it.

    ``past_steps`` are some of the steps of a generator that an earlier run trained.
    """

    artefact: Path | None
    training_s: float
    past_steps: Sequence[TrainingStep] = ()


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
        StudyError: the cluster has no room for training, or it diverged.
    """
    if spec.kind != "munit":
        return TrainedGenerator(None, 0.0)
    started = time.perf_counter()
    found = find_generator(spec, dataset, store, Compute.resolve(device=share.device))
    if found is not None:
        return TrainedGenerator(found, 0.0, _past_steps(found))
    check_training(share)
    options: dict[str, Any] = {
        "num_cpus": share.cpu,
        "num_gpus": share.gpu,
        "num_returns": "streaming",
        "max_retries": 3,
    }
    task: Any = ray.remote(**options)(_train)
    artefact: Path | None = None
    try:
        for reference in task.remote(spec, dataset.directory, store.root, share):
            item = ray.get(reference)
            if isinstance(item, Path):
                artefact = item
            else:
                on_step(item)
    except RayTaskError as error:
        raise _for_the_user(error) from None
    return TrainedGenerator(artefact, time.perf_counter() - started)


def _past_steps(artefact: Path) -> list[TrainingStep]:
    rows = [json.loads(line) for line in (artefact / LOSSES_FILE).read_text().splitlines()]
    total = rows[-1]["step"]
    kept = rows[:: max(1, len(rows) // _PAST_STEPS)]
    return [TrainingStep(step=row.pop("step"), total=total, losses=row, elapsed_s=0.0) for row in kept]


def _train(spec: GeneratorSpec, dataset: Path, store: Path, share: Share) -> Iterator[TrainingStep | Path]:
    """Yield the training steps that are reported, then the artefact's directory."""
    steps: queue.SimpleQueue[TrainingStep | Path | BaseException] = queue.SimpleQueue()

    def build() -> None:
        try:
            set_threads(share.cpu)
            opened = Dataset.open(dataset)
            artefact = generator_artefact(spec, opened, Store(store), steps.put, Compute.resolve(device=share.device))
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
