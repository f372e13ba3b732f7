"""Prepares a study: checks, records and repairs it before any training."""

from collections.abc import Callable
from pathlib import Path

from gitdist.data.dataset import Dataset, prepare
from gitdist.spec import StudySpec
from gitdist.store import Store
from gitdist.study.campaign import refuse_campaign
from gitdist.study.checks import check_plugins, check_services
from gitdist.study.compatibility import (
    StudyWeights,
    check_ledger_exists,
    check_or_record_data,
    check_or_record_weights,
    check_recorded_trials,
    check_started,
    check_weights,
    ensure_identity,
    has_current_splits,
    outdated_splits_error,
    store_spec,
)
from gitdist.study.data_fit import check_fit, check_networks
from gitdist.study.files.layout import StudyPaths, open_store
from gitdist.study.files.results import Results
from gitdist.study.repair import repair_trials
from gitdist.study.resources.generator import check_moved_generator
from gitdist.study.retry import copy_checkpoints, retry_failed_trials
from gitdist.study.study import Study
from gitdist.study.summary import is_finished
from gitdist.study.warm_start import find_observations, observations_for, record_observations


def check_files(spec: StudySpec, results: Path | Results) -> StudyPaths:
    """Check that the study may run in ``results``, and return its paths; write nothing."""
    paths = StudyPaths.at(results, spec.name)
    check_services(spec, paths.results)
    paths.pull()
    paths.check_readable()
    refuse_campaign(paths)
    check_ledger_exists(paths, spec)
    paths.check_writable()
    return paths


def open_files(spec: StudySpec, results: Path | Results) -> tuple[StudyPaths, Store]:
    """Check that the study may run in ``results``; return its paths and its store."""
    paths = check_files(spec, results)
    store = open_store(paths, spec)
    paths.create()
    return paths, store


def prepare_data(paths: StudyPaths, spec: StudySpec, store: Store) -> tuple[Dataset, StudyWeights]:
    """Return a study's data set and pretrained weights; check that the spec fits them and earlier runs of the study."""
    check_started(paths, spec)
    dataset = prepare(spec.data, store)
    check_fit(spec, dataset)
    return dataset, check_networks(spec, dataset, store)


def check_run(
    spec: StudySpec, results: Path | Results, store: Store, *, take_over: bool = False
) -> tuple[Dataset, int | None]:
    """Check what a run checks before it starts Ray; write nothing but what the data needs into ``store``.

    Returns:
        The data set, and how many trials of the search have ended; None = the study is finished.

    Raises:
        GitdistError: a run would be refused.
    """
    paths = check_files(spec, results)
    dataset, weights = prepare_data(paths, spec, store)
    if not Study.exists(paths, spec):
        check_plugins(spec)
        observations_for(spec.search, paths)
        return dataset, 0
    with Study.open(paths, spec) as study:
        if not take_over:
            study.refuse_owner()
        if is_finished(study):
            return dataset, None
        if not has_current_splits(study.ledger):
            raise outdated_splits_error(paths)
        check_plugins(spec)
        find_observations(study)
        if study.ledger.get_attr("data") is not None:
            check_or_record_data(paths, study.ledger, dataset.fingerprint)
        check_weights(study.ledger, weights)
        check_moved_generator(study, dataset)
        return dataset, sum(record.state != "running" for record in study.ledger.trials())


def check_and_repair(
    study: Study,
    dataset: Dataset,
    weights: StudyWeights,
    *,
    retry_failed: bool,
    log: Callable[[str], None],
) -> str:
    """Check spec, data and weights against earlier runs, repair damage of a crash, and return the study's identity.

    If ``retry_failed``, the failed trials are queued again, and ``log`` receives a line about them.
    """
    paths, spec, ledger = study.paths, study.spec, study.ledger
    paths.pull()  # with the lease, no other process writes any more
    current_splits, first_run = has_current_splits(ledger), ledger.get_attr("data") is None
    if not current_splits and (retry_failed or not is_finished(study)):
        raise outdated_splits_error(paths)
    if not is_finished(study):
        check_plugins(spec)  # an error must come before anything is recorded or started
    observations = find_observations(study)
    if first_run:
        store_spec(paths, spec, ledger)
    identity = ensure_identity(paths, ledger)
    check_recorded_trials(paths, ledger)
    if current_splits:
        check_or_record_data(paths, ledger, dataset.fingerprint)
        check_or_record_weights(ledger, weights)
    if not first_run:  # do not store the paths of other data or of another generator
        check_moved_generator(study, dataset)
        store_spec(paths, spec, ledger)
    if observations is not None:
        log(record_observations(ledger, observations))
    repair_trials(study, dataset if current_splits else None)
    if retry_failed:
        log(retry_failed_trials(ledger))
    copy_checkpoints(study)
    return identity
