"""Writes a study's files to MLflow while no driver runs it: all of its runs, or the files of a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gitdist.errors import DamagedFileError
from gitdist.generator.base import TrainingStep
from gitdist.study.files.attribution import read_identity
from gitdist.study.files.events import TrialStates
from gitdist.study.files.json_files import Summary, check_json
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.times import Times
from gitdist.study.monitoring.mlflow.content import (
    GENERATOR_RUN,
    STUDY_RUN,
    DesiredRun,
    RunKey,
    generator_run,
    generator_span,
    loss_metrics,
    parent_run,
    registered_run,
    study_status,
    trial_runs,
)
from gitdist.study.monitoring.mlflow.description import StudyDescription
from gitdist.study.monitoring.mlflow.runs import StudyRuns, UpsertResult
from gitdist.study.monitoring.mlflow.runs_table import table_view
from gitdist.study.monitoring.mlflow.store import is_database, mlflow_errors
from gitdist.study.summary import read_summary


@dataclass(frozen=True, kw_only=True)
class GeneratorRecord:
    """A study's finished generator: the artifact's name (or its kind), and steps of its training."""

    name: str
    steps: Sequence[TrainingStep] = ()


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """A study's data from its ledger and artifact store, which MLflow must have in addition to its files."""

    identity: str
    description: StudyDescription
    states: TrialStates
    num_open: int = 0  # trials that have not ended
    generator: GeneratorRecord | None = None  # None if it has not been trained yet
    register: str | None = None  # name under which the best trial's model is registered


@dataclass(frozen=True, kw_only=True)
class SyncCounts:
    """What MLflow lacked: whole runs, epochs of trials, and correct statuses of existing runs."""

    runs_created: int
    epochs_added: int
    statuses_fixed: int


def sync_study(paths: StudyPaths, uri: str, record: StudyRecord) -> SyncCounts:
    """Bring an MLflow store, even an empty one, up to date with the study's files and record; idempotent.

    Raises:
        DamagedFileError: a file of the study is damaged; all other runs are complete.
        StudyError: the store cannot be used, or does not answer.
        DiskError: the disk is full or failing.
    """
    results: dict[RunKey, UpsertResult] = {}
    errors: list[Exception] = []
    try:
        check_json(paths.summary, Summary)
    except DamagedFileError as error:  # for the runs it counts as missing
        errors.append(error)
    with mlflow_errors(uri):
        runs = StudyRuns(paths, uri, record.identity, table_view(record.description.spec))
        runs.load()
        name = record.generator.name if record.generator else None
        description = replace(record.description, generator=name)
        desired_runs = _desired_runs(paths, record)
        for key, desired in desired_runs.items():
            try:
                results[key] = runs.upsert(key, desired, description, thorough=True)
            except Exception as error:  # affects only this run if the store still answers
                errors.append(error)
                runs.check_store()
        num_orphans = runs.end_orphans(desired_runs)
        if errors:
            raise errors[0]
    return SyncCounts(
        runs_created=sum(result.created for result in results.values()),
        epochs_added=sum(result.num_steps for key, result in results.items() if key not in (STUDY_RUN, GENERATOR_RUN)),
        statuses_fixed=sum(result.status_changed for result in results.values()) + num_orphans,
    )


def log_report(paths: StudyPaths, uri: str, directory: Path, files: Sequence[Path]) -> bool:
    """Log files of a report's directory to the study's parent run, as ``report/...``; return whether it exists."""
    identity = read_identity(paths)
    if identity is None:
        return False
    if is_database(uri):
        paths.check_writable()
    with mlflow_errors(uri):
        runs = StudyRuns(paths, uri, identity)
        artifact_directories = {file: ("report" / file.relative_to(directory)).parent.as_posix() for file in files}
        return runs.log_files(STUDY_RUN, artifact_directories)


def _desired_runs(paths: StudyPaths, record: StudyRecord) -> dict[RunKey, DesiredRun]:
    summary, times, generator = read_summary(paths), Times(paths), record.generator
    status = study_status(record.states, record.num_open, finished=summary is not None)
    desired = {STUDY_RUN: parent_run(paths, status, summary, times)}
    if generator is not None:
        losses = loss_metrics(generator.steps, generator_span(paths, times).ended_at)  # the artifact lacks their times
        desired[GENERATOR_RUN] = generator_run(paths, losses, "FINISHED", times)
    desired |= trial_runs(paths, record.states, times)
    return desired | registered_run(desired, summary, record.register)
