"""What MLflow has of a whole study: opens its tracker for a driver, or reads its ledger and files without one."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gitdist.errors import StoreError, StudyError
from gitdist.generator.munit.training import past_steps
from gitdist.spec import StudySpec
from gitdist.study.files.layout import StudyPaths, open_store
from gitdist.study.files.times import Times
from gitdist.study.models import find_dataset, save_models
from gitdist.study.monitoring.mlflow.description import StudyDescription, find_source
from gitdist.study.monitoring.mlflow.sync import GeneratorRecord, StudyRecord, SyncCounts, sync_study
from gitdist.study.monitoring.mlflow.tracker import Tracker
from gitdist.study.monitoring.mlflow.uri import tracking_uri
from gitdist.study.study import GENERATOR, SOURCE, Study
from gitdist.study.summary import is_finished


def open_tracker(
    study: Study,
    fingerprint: str,
    study_file: Path | None,
    identity: str,
    log: Callable[[str], None],
    check_owner: Callable[[], None],
    times: Times,
) -> Tracker:
    """Open the tracker of a study that this process runs, and log where its runs are shown.

    The study's first driver records the study file, and the commit of its checkout.
    """
    paths, spec, ledger = study.paths, study.spec, study.ledger
    source = ledger.get_attr(SOURCE)
    if source is None:
        source = find_source(study_file)
        ledger.set_attr(SOURCE, source)
    description = StudyDescription(spec=spec, fingerprint=fingerprint, source=source)
    uri, register = tracking_uri(paths, spec.tracking.uri), spec.tracking.register_
    tracker = Tracker(paths, uri, identity, description, log, check_owner, times, register)
    link = tracker.table_link()
    if link is not None:
        log(f"runs in MLflow: {link}")
    elif paths.results.uri is None:
        log(f"see the runs in MLflow with: gitdist ui {paths.name} --results {paths.results}")
    return tracker


def read_study_record(study: Study) -> StudyRecord:
    """Return the record of a study."""
    paths, spec, ledger = study.paths, study.spec, study.ledger
    identity, fingerprint = ledger.get_attr("identity"), ledger.get_attr("data")
    if identity is None or fingerprint is None:
        raise StudyError(
            f"study '{spec.name}' in {paths.results} has not started any trial yet; `gitdist run` starts it"
        )
    name = ledger.get_attr(GENERATOR)
    generator = None
    if name is not None:
        steps = past_steps(_generator_directory(paths, spec, name))
        generator = GeneratorRecord(name=name, steps=steps)
    return StudyRecord(
        num_open=ledger.num_open(),
        identity=identity,
        description=StudyDescription(spec=spec, fingerprint=fingerprint, source=ledger.get_attr(SOURCE) or {}),
        states=study.trial_states(),
        generator=generator,
        register=spec.tracking.register_,
    )


def sync_mlflow(study: Study, log: Callable[[str], None]) -> tuple[str, SyncCounts]:
    """Bring MLflow up to date with a study's files and ledger; return its URI and what it lacked.

    Models that a finished study has not saved are saved first if the store still has the data set.
    """
    if study.spec.tracking.models and is_finished(study) and (dataset := find_dataset(study)) is not None:
        save_models(study, dataset, log)
    uri = tracking_uri(study.paths, study.spec.tracking.uri)
    return uri, sync_study(study.paths, uri, read_study_record(study))


def complete_mlflow(study: Study, log: Callable[[str], None]) -> None:
    """Write to MLflow what a driver did not write because it was killed just before its end."""
    try:
        sync_mlflow(study, log)
    except (StudyError, StoreError) as error:
        log(str(error))


def _generator_directory(paths: StudyPaths, spec: StudySpec, name: str) -> Path:
    directory = paths.results.store / "generator" / name
    if paths.results.uri is not None and not directory.exists():
        with suppress(StoreError):  # it has no weights, or is not stored there any more
            return open_store(paths, spec).resolve_locally(directory)
    return directory
