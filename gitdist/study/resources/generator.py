"""The generator of a study, trained as a Ray task that can be killed and resumes from its last checkpoint.

driver <--training steps (a streaming task)-- generator function <--queue-- training thread

The driver first waits for free capacity, and says so.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, limit_to_share
from gitdist.errors import DiskError, GitdistError, StudyError, first_line
from gitdist.generator.base import TrainingStep
from gitdist.generator.grid import sample_grid, save_grid
from gitdist.generator.kinds import (
    find_artifact,
    generator_name,
    load_generator,
    needs_training,
    obtain_artifact,
)
from gitdist.generator.munit.training import LOSSES_FILE
from gitdist.spec import GeneratorSpec, ResourcesSpec, Share
from gitdist.store import Store
from gitdist.stream.reservation import reserve
from gitdist.study.cluster.connect import cluster_nodes
from gitdist.study.files.times import GENERATOR as GENERATOR_TIMES
from gitdist.study.resources.generator_identity import keep_precision, settle_generator
from gitdist.study.running_study import RunningStudy
from gitdist.study.scheduling.packing import check_fits_alone
from gitdist.study.scheduling.tasks import to_user_error
from gitdist.study.study import GENERATOR

_DRAWS_PER_IMAGE = 8  # in the picture of samples
_PAST_STEPS = 200  # of a generator found in the store
_MAX_DEATHS = 3  # of the training's workers without a step between them


@dataclass(frozen=True)
class TrainedGenerator:
    """The generator's artifact (None if it has no weights) and the seconds that training it took now.

    ``past_steps`` samples all of its training steps, also those of earlier drivers.
    """

    artefact: Path | None
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

    Args:
        spec: the generator.
        dataset: what it is trained on.
        store: where trained generators are stored.
        resources: ``training`` is the share of the training task.
        on_step: receives training steps on the driver.
        on_wait: receives the seconds that training has waited for free capacity; may raise to end the wait.

    Raises:
        StudyError: no node is large enough for training, or it diverged.
        SpecError: an imported file or a plugin cannot be read.
    """
    if not needs_training(spec):
        return TrainedGenerator(obtain_artifact(spec, dataset, store, on_step, Compute.resolve()), 0.0)
    share, started = resources.training, time.perf_counter()
    if found := find_artifact(spec, dataset, store, Compute.resolve(device=share.device)):
        return TrainedGenerator(found, 0.0, past_steps(found))
    check_fits_alone(cluster_nodes(), resources, "training", "train the generator")
    trained = _train_on_cluster(share, (spec, dataset.directory, store, share), on_step, on_wait)
    artefact = store.resolve_locally(trained)
    store.mark_used("generator", trained.name)  # this process uses it from now on
    return TrainedGenerator(artefact, time.perf_counter() - started, past_steps(artefact))


def train_study_generator(running: RunningStudy) -> TrainedGenerator:
    """Obtain the generator of a study, record it in the ledger and MLflow, and draw samples of it."""
    study, spec, tracker = running.study, running.spec.generator, running.tracker
    known = study.ledger.get_attr(GENERATOR)
    if known is None:  # else an earlier driver obtained it
        running.times.started(GENERATOR_TIMES)
    tracker.generator_started(spec.model_dump())

    def on_step(step: TrainingStep) -> None:
        running.lease.check()
        running.display.training_step(step)
        tracker.generator_stepped([step])

    try:
        spec = keep_precision(spec, running.dataset.fingerprint, known)
        on_wait = partial(running.report_wait, "training the generator")
        generator = obtain_generator(spec, running.dataset, running.store, running.spec.resources, on_step, on_wait)
        name = generator_name(spec, generator.artefact)
        settle_generator(spec, name, known)
        _draw_samples(running, generator)
    except DiskError:
        raise
    except (GitdistError, RayTaskError):
        if known is None:
            running.times.ended(GENERATOR_TIMES)
        tracker.generator_failed()
        raise
    if known is None:
        running.times.ended(GENERATOR_TIMES)
    study.ledger.set_attr(GENERATOR, name)
    tracker.generator_ended(name, generator.past_steps)
    return generator


def _draw_samples(running: RunningStudy, generator: TrainedGenerator) -> None:
    dataset, spec, samples = running.dataset, running.spec, running.study.paths.samples
    compute = Compute.resolve(spec.stream.precision, "cpu")
    loaded = load_generator(spec.generator, dataset, generator.artefact, compute)
    save_grid(sample_grid(loaded, dataset, 1, _DRAWS_PER_IMAGE, spec.stream.seed), samples)
    running.study.paths.push(samples)


def past_steps(artefact: Path) -> list[TrainingStep]:
    """Return some of the training steps of a generator in the store; none where their file is damaged."""
    try:
        rows = [json.loads(line) for line in (artefact / LOSSES_FILE).read_text().splitlines()]
        total = rows[-1]["step"]
    except (OSError, ValueError, LookupError, TypeError):  # the next run of the study makes the artefact anew
        return []
    kept = [*rows[: -1 : max(1, len(rows) // _PAST_STEPS)], rows[-1]]
    return [TrainingStep(step=row.pop("step"), total=total, losses=row, elapsed_s=0.0) for row in kept]


def _train_on_cluster(
    share: Share,
    arguments: tuple[Any, ...],
    on_step: Callable[[TrainingStep], None],
    on_wait: Callable[[float], None],
) -> Path:
    """Return the artefact's directory where ``_train`` with these arguments made it, over the deaths of its workers."""
    # Ray's own retry of a streaming task leaves out as many items as were taken before; a resumed training has fewer.
    options: dict[str, Any] = {"num_returns": "streaming", "max_retries": 0}
    task: Any = ray.remote(num_cpus=share.cpu, num_gpus=share.gpu, **options)(_train)
    deaths = 0
    while True:
        places = reserve(share, 1, on_wait)
        try:
            placed = task.options(scheduling_strategy=PlacementGroupSchedulingStrategy(places))
            for reference in placed.remote(*arguments):
                item = ray.get(reference)
                if isinstance(item, Path):
                    return item
                deaths = 0
                on_step(item)
        except RayTaskError as error:
            remedy = "lower generator.lr or set generator.precision: float32"
            raise to_user_error(error, f"training the generator failed: {error.cause}; {remedy}") from None
        except RayError as error:
            deaths += 1
            if deaths == _MAX_DEATHS:
                raise StudyError(
                    f"training the generator lost its worker {deaths} times without a step between them "
                    f"({first_line(error)}); give it more by resources.training, or lower generator.batch_size or dim"
                ) from None
        finally:
            remove_placement_group(places)


def _train(spec: GeneratorSpec, dataset: Path, store: Store, share: Share) -> Iterator[TrainingStep | Path]:
    """Yield the training steps that are reported, then the artefact's directory."""
    steps: queue.SimpleQueue[TrainingStep | Path | BaseException] = queue.SimpleQueue()

    def build() -> None:
        try:
            limit_to_share(share.cpu, share.gpu)
            opened = Dataset.open(store.resolve_locally(dataset))
            artefact = obtain_artifact(spec, opened, store, steps.put, Compute.resolve(device=share.device))
            assert artefact, "what trains has an artefact"
            steps.put(artefact)
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
