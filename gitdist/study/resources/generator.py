"""The generator of a study, trained as a Ray task that can be killed and goes on from its last checkpoint.

driver <--a stream of training steps-- task: thread that trains --queue--> the task's generator function

The driver waits for room first, and says so.
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
from ray.exceptions import RayError, RayTaskError
from ray.util import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, Precision, limit_to_share
from gitdist.errors import StudyError, first_line
from gitdist.generator.base import TrainingStep
from gitdist.generator.kinds import find_artifact, munit_artifact_spec, needs_training, obtain_artifact
from gitdist.generator.munit.training import LOSSES_FILE
from gitdist.spec import GeneratorSpec, MunitSpec, ResourcesSpec, Share
from gitdist.store import Store, content_key
from gitdist.stream.room import reserve
from gitdist.study.cluster.connect import cluster_nodes
from gitdist.study.scheduling.packing import check_fits_alone
from gitdist.study.scheduling.tasks import to_user_error

_PAST_STEPS = 200  # of a generator found in the store
_MAX_DEATHS = 3  # of the training's workers without a step between them


@dataclass(frozen=True)
class TrainedGenerator:
    """The generator's artefact (None where it has no weights) and the seconds spent on getting it.

    ``past_steps`` are some of all its steps, those of earlier drivers among them.
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
    """Return the generator: out of the store, trained on the cluster, or at hand already.

    Args:
        spec: the generator.
        dataset: what it is trained on.
        store: where trained generators are kept.
        resources: its ``training`` says what the training task takes.
        on_step: told of training steps, here on the driver.
        on_wait: told now and then for how many seconds there has been no room for the training; what it raises ends it.

    Raises:
        StudyError: the cluster has no room for training, or it diverged.
        SpecError: an imported file or a plugin cannot be read.
    """
    if not needs_training(spec):
        return TrainedGenerator(obtain_artifact(spec, dataset, store, on_step, Compute.resolve()), 0.0)
    share, started = resources.training, time.perf_counter()
    if found := find_artifact(spec, dataset, store, Compute.resolve(device=share.device)):
        return TrainedGenerator(found, 0.0, past_steps(found))
    check_fits_alone(cluster_nodes(), resources, "training", "train the generator")
    trained = _train_on_cluster(share, (spec, dataset.directory, store, share), on_step, on_wait)
    artefact = store.here(trained)
    store.use("generator", trained.name)  # from now on it is this process that holds it
    return TrainedGenerator(artefact, time.perf_counter() - started, past_steps(artefact))


def keep_precision(spec: GeneratorSpec, fingerprint: str, known: str | None) -> GeneratorSpec:
    """Return the generator's spec with ``precision: auto`` as the first run resolved it, on whatever machine this is.

    Args:
        spec: the generator.
        fingerprint: of the data set that it is trained on.
        known: its ``generator_name`` at the first run; None = this is it.

    Raises:
        StudyError: it is another one now, in whichever precision it is trained.
    """
    if not isinstance(spec, MunitSpec) or known is None:
        return spec
    precisions: list[Precision] = ["bf16", "float32"] if spec.precision == "auto" else [spec.precision]
    for precision in precisions:
        settings = munit_artifact_spec(spec, fingerprint, Compute.resolve(precision, "cpu"))
        name = content_key("generator", settings)
        if name == known:
            return spec.model_copy(update={"precision": precision})
    raise _another(spec, name, known)


def settle_generator(spec: GeneratorSpec, name: str, known: str | None) -> None:
    """Accept a generator only as it was at the first run: trials that are compared share one.

    Args:
        spec: the generator.
        name: its ``generator_name`` now.
        known: its name at the first run; None = this is it.

    Raises:
        StudyError: it is another one now.
    """
    if known not in (None, name):
        raise _another(spec, name, known)


def past_steps(artefact: Path) -> list[TrainingStep]:
    """Return some of the training steps of a generator in the store; none where their file is damaged."""
    try:
        rows = [json.loads(line) for line in (artefact / LOSSES_FILE).read_text().splitlines()]
        total = rows[-1]["step"]
    except (OSError, ValueError, LookupError, TypeError):  # the next run of the study makes the artefact anew
        return []
    kept = [*rows[: -1 : max(1, len(rows) // _PAST_STEPS)], rows[-1]]
    return [TrainingStep(step=row.pop("step"), total=total, losses=row, elapsed_s=0.0) for row in kept]


def _another(spec: GeneratorSpec, name: str, known: str | None) -> StudyError:
    now = "file, target, version and precision" if spec.from_outside else "settings and this version of gitdist"
    return StudyError(
        f"the study was started with another generator.kind '{spec.kind}' ({known}) than its {now} now give ({name}); "
        "put that one back, or start another study with --fork NAME"
    )


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
            opened = Dataset.open(store.here(dataset))
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
