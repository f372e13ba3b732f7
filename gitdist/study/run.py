"""Running a study; running it again resumes it, and a finished one is left as it is.

    spec checked -> data set -> ledger -> lease -> spec, identity and data settled -> what is left, by ``StudySession``

One driver at a time gets past the lease.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from gitdist.data.dataset import Dataset, prepare
from gitdist.disk import disk_errors
from gitdist.errors import SpecError, StudyError
from gitdist.generator.kinds import pretrained_name
from gitdist.logging import silence_libraries
from gitdist.spec import PretrainedSpec, StudySpec
from gitdist.study.campaign import refuse_campaign
from gitdist.study.checks import check_services
from gitdist.study.cluster.connect import check_address
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
from gitdist.study.files.repair import repair_trial
from gitdist.study.files.results import Mirror
from gitdist.study.ledger.lease import Lease
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.trial_states import BASELINE_FAILURE, GENERATOR, all_ended, trial_states
from gitdist.study.monitoring.display import Display, open_display
from gitdist.study.monitoring.mlflow.sync import sync_study
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from gitdist.study.resources.generator import settle_generator
from gitdist.study.resources.stream import OwnedStudy
from gitdist.study.session import StudySession
from gitdist.study.study_record import read_study_record
from gitdist.study.summary import read_summary, remove_summary
from gitdist.trial.checkpoint import checkpoints_of
from gitdist.trial.classifier import check_network
from gitdist.trial.mixing import check_threshold


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run a study, apart from what it is.

    Attributes:
        address: Ray cluster to join; None = ``$RAY_ADDRESS``, else a Ray of this machine for the study's time.
        take_over: end the term of a driver that seems to live.
        retry_failed: try the failed trials again.
        on_ray_death: called last when Ray has died, with whether it was started here and whether any epoch was trained
            since this session began; it must not return. None = exit with 1.
    """

    address: str | None = None
    take_over: bool = False
    retry_failed: bool = False
    on_ray_death: Callable[[bool, bool], None] | None = None


def run_study(
    spec: StudySpec, results: Path | Mirror, console: Console, options: RunOptions | None = None
) -> dict[str, Any]:
    """Run a study to its end and return its summary.

    Args:
        spec: the study.
        results: the results directory, or the results on an object store.
        console: where progress is shown.
        options: how to run it.

    Raises:
        GitdistError: the study cannot be run as asked, or not to its end; then the same call goes on with it.
        KeyboardInterrupt: the user stopped it; the same call goes on with it.
    """
    silence_libraries()
    options = options or RunOptions()
    check_address(options.address)
    paths = _find_paths(spec, results)
    paths.check_writable()
    store = open_store(paths, spec)
    paths.create()
    with open_display(console, spec.trial.epochs, tuple(spec.search.space)) as display:
        check_started(paths, spec)
        dataset = prepare(spec.data, store)
        check_fit(spec, dataset)
        ledger = Ledger.open(paths, spec)
        try:
            with Lease.claim(ledger.storage, spec.name, take_over=options.take_over) as lease:
                identity = _settle(paths, spec, dataset, ledger, options)
                if options.retry_failed:
                    display.say(_retry(ledger))
                carry_over(paths, ledger)
                if _is_finished(paths, spec, ledger):
                    return _as_it_is(paths, spec, ledger, display)
                remove_summary(paths)  # of a study that has become longer since
                owned = OwnedStudy(
                    spec=spec,
                    paths=paths,
                    store=store,
                    dataset=dataset,
                    ledger=ledger,
                    lease=lease,
                    identity=identity,
                    display=display,
                    began=time.perf_counter(),
                )
                with store.holding(spec.name):
                    return StudySession(owned, options.on_ray_death).run(options.address)
        finally:
            ledger.close()


def _find_paths(spec: StudySpec, results: Path | Mirror) -> StudyPaths:
    check_services(spec, results)
    paths = StudyPaths.at(results, spec.name)
    paths.refresh()
    refuse_campaign(paths)
    return paths


def check_fit(spec: StudySpec, dataset: Dataset) -> None:
    """Refuse a study that asks for what its images or class sizes do not have.

    Raises:
        SpecError: the soft threshold is used with a K that is not above the smallest class, an objective is the
            accuracy of few-shot classes, and none of these has a validation image, or a network is for images of
            another size.
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


def _values(spec: StudySpec, method: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    """Return the values of a trial field that the trials of a method may have: all choices, or both bounds."""
    searched = spec.search.space.get(name)
    return searched.extremes if searched else (method.get(name, getattr(spec.trial, name)),)


def _settle(paths: StudyPaths, spec: StudySpec, dataset: Dataset, ledger: Ledger, options: RunOptions) -> str:
    """Hold the study to what it was started with, mend what a crash left, and return its identity."""
    paths.refresh()  # from now on nobody else writes
    current, first = has_current_splits(ledger.recall), ledger.recall("data") is None
    if not current and (options.retry_failed or not _is_finished(paths, spec, ledger)):
        raise outdated_splits(paths)
    if first:
        settle_spec(paths, spec, ledger.recall, ledger.remember)
    identity = settle_identity(paths, ledger.recall, ledger.remember)
    if current:
        settle_data(paths, ledger.recall, ledger.remember, dataset.fingerprint)
    if not first:  # paths of other data, or of another generator, are not stored
        _check_moved_generator(paths, spec, dataset, ledger)
        settle_spec(paths, spec, ledger.recall, ledger.remember)
    for trial, (_, outcome) in trial_states(paths, spec, ledger).items():
        if outcome is not None:
            repair_trial(paths, trial)
    return identity


def _check_moved_generator(paths: StudyPaths, spec: StudySpec, dataset: Dataset, ledger: Ledger) -> None:
    """Accept another file of an imported generator only with the same content."""
    known, generator = ledger.recall(GENERATOR), spec.generator
    if known is None or not isinstance(generator, PretrainedSpec) or not paths.spec.exists():
        return
    if load_stored_spec(paths).generator != generator:
        settle_generator(generator, pretrained_name(generator, dataset), known)


def carry_over(paths: StudyPaths, ledger: Ledger) -> None:
    """Give trials that repeat a failed one its checkpoints.

    Raises:
        DiskError: the disk does not take them.
    """
    for record in ledger.trials():
        place = paths.trial(TrialId("trial", record.number))
        if record.retry_of is not None and record.state == "running" and not _checkpoints(paths, record.number):
            with disk_errors(place):
                place.mkdir(parents=True, exist_ok=True)
                for checkpoint in _checkpoints(paths, record.retry_of):
                    shutil.copy(checkpoint, place)  # one that is cut short here is not whole, and is passed over
            if paths.mirror is not None:
                paths.mirror.push_trial(place)


def _checkpoints(paths: StudyPaths, number: int) -> list[Path]:
    directory = paths.trial(TrialId("trial", number))
    if paths.mirror is not None:
        paths.mirror.pull(directory, checkpoints=True)
    return checkpoints_of(directory).files()


def _retry(ledger: Ledger) -> str:
    """Have the failed trials tried again and return a line about it."""
    told = [f"trial {failed} as trial {new}" for failed, new in ledger.retry_failed()]
    if ledger.recall(BASELINE_FAILURE) is not None:
        ledger.remember(BASELINE_FAILURE, None)
        told.append("the baseline")
    return f"trying again: {', '.join(told)}" if told else "no failed trial is left to try again"


def _is_finished(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> bool:
    return all_ended(paths, spec, ledger) and read_summary(paths) is not None


def _as_it_is(paths: StudyPaths, spec: StudySpec, ledger: Ledger, display: Display) -> dict[str, Any]:
    """Return a finished study's summary, and let MLflow have what a driver that was killed at its very end left out."""
    try:
        sync_study(paths, tracking_uri(paths, spec.tracking.uri), read_study_record(paths, spec, ledger))
    except StudyError as error:
        display.say(str(error))
    display.say(f"study '{spec.name}' is finished; nothing to do")
    return read_summary(paths) or {}
