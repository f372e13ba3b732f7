"""What a run of a study would do and cost, found out without writing into its results and without Ray.

It refuses what a run refuses before its first trial, except what only the nodes of a cluster know.
"""

import errno
import math
import os
import shutil
from dataclasses import dataclass

from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.disk import results_directory_error
from gitdist.errors import GitdistError
from gitdist.generator.kinds import find_artifact, needs_training
from gitdist.limits import nearest_existing
from gitdist.spec import StudySpec
from gitdist.store import Store, content_key
from gitdist.store.temporary import temporary_store
from gitdist.study.cluster.connect import LOCAL, check_address, check_ray_can_start, ray_address
from gitdist.study.data_fit import describe_study
from gitdist.study.duration import Duration, local_capacity, measure_duration, with_local_shares
from gitdist.study.files.results import Results
from gitdist.study.prepare import check_run
from gitdist.trial.checkpoint import fresh_classifier

_COPIES = 2  # of its weights that a trial keeps: a checkpoint has weights and momentum
_TRIAL_BYTES = 500_000  # of a trial's other files and of its part of MLflow's store


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a run of a study would do.

    ``lines`` describe its data. ``num_ended`` counts the trials of the search that have ended; None = the study is
    finished. ``generator`` is the name of the generator that the study trains, in the store if ``has_generator``;
    empty = it trains none. ``duration`` is of the whole study, None if it cannot be measured. ``free_bytes`` are those
    of the results' disk, None on an object store.
    """

    lines: tuple[str, ...]
    num_ended: int | None
    generator: str
    has_generator: bool
    duration: Duration | None
    disk_bytes: int
    free_bytes: int | None


def dry_run(spec: StudySpec, results: Results, address: str | None, *, take_over: bool = False) -> DryRun:
    """Check a study as a run does, and return what the run would do.

    Args:
        spec: of the study.
        results: where it would run.
        address: of the cluster; None = ``$RAY_ADDRESS``, else this machine.
        take_over: whether a study that a live driver runs is not refused.

    Raises:
        GitdistError: the run would be refused.
    """
    check_address(address)
    _check_creatable(results)
    is_local, here = ray_address(address) == LOCAL, with_local_shares(spec)
    if is_local:
        check_ray_can_start()
    with temporary_store(results.store if results.store.is_dir() else None) as store:
        dataset, num_ended = check_run(spec, results, store, take_over=take_over)
        if is_local:
            local_capacity(here)
        generator, has_generator = "", False
        if needs_training(spec.generator):
            generator = content_key(
                "generator", {**spec.generator.model_dump(mode="json"), "data": dataset.fingerprint}
            )
            compute = Compute.resolve(getattr(spec.generator, "precision", "auto"), here.resources.training.device)
            has_generator = find_artifact(spec.generator, dataset, store, compute) is not None
        return DryRun(
            lines=(*describe_study(spec, dataset), *dataset.notes),
            num_ended=num_ended,
            generator=generator,
            has_generator=has_generator,
            duration=None if num_ended is None else _duration(spec, dataset, store, address),
            disk_bytes=_disk_bytes(spec, dataset),
            free_bytes=None if results.uri else shutil.disk_usage(nearest_existing(results.store.absolute())).free,
        )


def _duration(spec: StudySpec, dataset: Dataset, store: Store, address: str | None) -> Duration | None:
    try:
        return measure_duration(spec, dataset, store, address)
    except GitdistError:
        raise
    except Exception:  # the study itself reports it, if it is one
        return None


def _check_creatable(results: Results) -> None:
    """Refuse a results directory that is missing and cannot be created."""
    if results.uri is None:
        above = nearest_existing(results.store.absolute().parent)
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            reason = os.strerror(errno.EACCES if above.is_dir() else errno.ENOTDIR)
            raise results_directory_error(results.store.parent, reason)


def _disk_bytes(spec: StudySpec, dataset: Dataset) -> int:
    """Return about how many bytes a new study writes: images, checkpoints of the trials, and MLflow's store."""
    evaluation, image = spec.evaluation, math.prod(dataset.image_shape)
    splits = (dataset.train, dataset.validation, dataset.test)
    images = sum(len(split.labels) for split in splits) * (1 if dataset.nuisance == "none" else 2)
    if spec.search.total:
        images += dataset.num_classes * (
            evaluation.epoch_images_per_class * (1 + evaluation.epoch_transformations)
            + evaluation.final_images_per_class * (1 + evaluation.final_transformations)
        )
    weights = 0
    if spec.num_trials:
        model = fresh_classifier(spec.trial, dataset)
        weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    return images * image + spec.num_trials * (_COPIES * weights + _TRIAL_BYTES)
