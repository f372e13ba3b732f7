"""Preparation of a study to be run: what is checked, recorded and repaired before anything is trained."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gitdist.data.dataset import Dataset, prepare
from gitdist.disk import disk_errors
from gitdist.errors import SpecError, StudyError
from gitdist.generator.artefact import pretrained_name
from gitdist.spec import PretrainedSpec, StudySpec
from gitdist.store import Store
from gitdist.study.campaign import refuse_campaign
from gitdist.study.checks import check_services
from gitdist.study.compatibility import (
    check_started,
    has_current_splits,
    load_stored_spec,
    outdated_splits,
    settle_data,
    settle_identity,
    settle_spec,
)
from gitdist.study.files.layout import StudyPaths, TrialId, open_store
from gitdist.study.files.results import Results
from gitdist.study.files.rows import repair_trial
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.space import point_plan, untried
from gitdist.study.resources.generator import settle_generator
from gitdist.study.study import BASELINE_FAILURE, GENERATOR, Study
from gitdist.study.study_record import sync_mlflow
from gitdist.study.summary import read_summary
from gitdist.trial.checkpoint import checkpoints_of
from gitdist.trial.classifier import check_network
from gitdist.trial.mixing import check_threshold


def open_files(spec: StudySpec, results: Path | Results) -> tuple[StudyPaths, Store]:
    """Return the files of the study that ``spec`` names and its store, after checking that it may be run there.

    Raises:
        SpecError: the results are on an object store, and the ledger or MLflow store is no server.
        StudyError: a campaign has that name.
        StoreError: the results cannot be written.
    """
    paths = StudyPaths.at(results, spec.name)
    check_services(spec, paths.results)
    paths.pull()
    refuse_campaign(paths)
    paths.check_writable()
    store = open_store(paths, spec)
    paths.create()
    return paths, store


def prepare_data(paths: StudyPaths, spec: StudySpec, store: Store) -> Dataset:
    """Return the data set of a study, after checking that spec and data fit each other and what was run before."""
    check_started(paths, spec)
    dataset = prepare(spec.data, store)
    check_fit(spec, dataset)
    return dataset


def check_fit(spec: StudySpec, dataset: Dataset) -> None:
    """Refuse a study that needs images or class sizes that the data set does not have.

    Raises:
        SpecError: the soft threshold is used with a K that is not above the smallest class, an objective is the
            accuracy of few-shot classes and none of these has a validation image, or a network is for images of another
            size.
    """
    if "val/few_accuracy" in spec.search.objectives:
        validated = np.isin(np.arange(dataset.num_classes), dataset.validation.labels)
        if not (dataset.groups.few & validated).any():
            lacking = "none with a validation image" if dataset.groups.few.any() else "none"
            raise SpecError(
                f"search.objective val/few_accuracy needs few-shot classes, but the data set has {lacking} "
                f"({dataset.groups.rule}); set data.groups, or take val/balanced_accuracy"
            )
    for fields in spec.methods.values() or [{}]:
        for network in _values(spec, fields, "network"):
            check_network(network, dataset.image_shape)
        for kind in _values(spec, fields, "threshold_kind"):
            for threshold in _values(spec, fields, "threshold"):
                check_threshold(threshold, kind, dataset.class_sizes)


def settle_study(study: Study, dataset: Dataset, *, retry_failed: bool) -> str:
    """Hold the study to what it was started with, repair what a crash left, and return its identity.

    Raises:
        StudyError: spec, data, generator or splits differ from those that the study was started with.
    """
    paths, spec, ledger = study.paths, study.spec, study.ledger
    paths.pull()  # from now on no other process writes
    current, first = has_current_splits(ledger.recall), ledger.recall("data") is None
    if not current and (retry_failed or not is_finished(study)):
        raise outdated_splits(paths)
    if first:
        settle_spec(paths, spec, ledger.recall, ledger.remember)
    identity = settle_identity(paths, ledger.recall, ledger.remember)
    if current:
        settle_data(paths, ledger.recall, ledger.remember, dataset.fingerprint)
    if not first:  # the paths of other data or of another generator must not be stored
        _check_moved_generator(study, dataset)
        settle_spec(paths, spec, ledger.recall, ledger.remember)
    for trial, (_, outcome) in study.trial_states().items():
        if outcome is not None:
            repair_trial(paths, trial)
    return identity


def retry_failed_trials(ledger: Ledger) -> str:
    """Queue the failed trials again and return a line about it."""
    retried = [f"trial {failed} as trial {new}" for failed, new in ledger.retry_failed()]
    if ledger.recall(BASELINE_FAILURE) is not None:
        ledger.remember(BASELINE_FAILURE, None)
        retried.append("the baseline")
    return f"retrying: {', '.join(retried)}" if retried else "no failed trial is left to retry"


def copy_checkpoints(study: Study) -> None:
    """Copy the checkpoints of failed trials to the trials that retry them."""
    paths = study.paths
    for record in study.ledger.trials():
        directory = paths.trial(TrialId("trial", record.number))
        if record.retry_of is not None and record.state == "running" and not _checkpoints(paths, record.number):
            with disk_errors(directory):
                directory.mkdir(parents=True, exist_ok=True)
                for checkpoint in _checkpoints(paths, record.retry_of):
                    shutil.copy(checkpoint, directory)  # an incomplete copy is skipped when checkpoints are loaded
            paths.results.push_trial(directory)


def is_finished(study: Study) -> bool:
    """Return whether all trials have ended and the summary exists."""
    return study.all_ended() and read_summary(study.paths) is not None


def complete_mlflow(study: Study, say: Callable[[str], None]) -> None:
    """Write to MLflow what a driver that was killed at its very end left out."""
    try:
        sync_mlflow(study)
    except StudyError as error:
        say(str(error))


def describe_study(spec: StudySpec, dataset: Dataset) -> list[str]:
    """Return lines about the data of a study and about points that its search leaves out or lacks."""
    sizes = dataset.class_sizes
    lines = [
        f"study '{spec.name}': {spec.data.source}, nuisance {spec.data.nuisance}, {dataset.num_classes} classes of "
        f"{sizes.max()} to {sizes.min()} images, {sizes.sum()} in all"
    ]
    left_out, plan = untried(spec.search), point_plan(spec.search)
    if left_out:
        lines.append(f"search.total leaves out {left_out} points of the grid")
    elif plan is not None and len(plan) < spec.search.total:
        what = "the grid" if spec.search.algorithm == "grid" else "the search space"
        points = "1 point" if len(plan) == 1 else f"{len(plan)} points"
        lines.append(f"search.total is {spec.search.total}, but {what} has {points}: each is tried once")
    return lines


def _values(spec: StudySpec, method: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """Return the values of a trial field that the trials of a method may have: all choices, or both bounds."""
    searched = spec.search.space.get(name)
    return searched.extremes if searched else (method.get(name, getattr(spec.trial, name)),)


def _check_moved_generator(study: Study, dataset: Dataset) -> None:
    """Accept another file of an imported generator only if it has the same content."""
    known, generator = study.ledger.recall(GENERATOR), study.spec.generator
    if known is None or not isinstance(generator, PretrainedSpec) or not study.paths.spec.exists():
        return
    if load_stored_spec(study.paths).generator != generator:
        settle_generator(generator, pretrained_name(generator, dataset), known)


def _checkpoints(paths: StudyPaths, number: int) -> list[Path]:
    directory = paths.trial(TrialId("trial", number))
    paths.results.pull(directory, checkpoints=True)
    return checkpoints_of(directory).files()
