"""MLflow rebuilt or completed from a study's files, at any time that no driver runs the study; twice is once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gitdist.address import without_secrets
from gitdist.errors import StudyError
from gitdist.generator.base import TrainingStep
from gitdist.study.files.events import TrialStates
from gitdist.study.files.layout import StudyPaths
from gitdist.study.files.times import Times
from gitdist.study.monitoring.mlflow.content import (
    GENERATOR,
    STUDY,
    DesiredRun,
    RunKey,
    generator_content,
    loss_points,
    trial_contents,
)
from gitdist.study.monitoring.mlflow.parent_run import generator_span, study_content, study_status
from gitdist.study.monitoring.mlflow.runs import Changes, StudyRuns
from gitdist.study.monitoring.mlflow.store import explain, is_outage, open_experiment, unusable
from gitdist.study.summary import read_summary


@dataclass(frozen=True, kw_only=True)
class GeneratorRecord:
    """A study's finished generator: the artefact's name (or its kind), its settings, and steps of its training."""

    name: str
    params: Mapping[str, Any]
    steps: Sequence[TrainingStep] = ()


@dataclass(frozen=True, kw_only=True)
class SyncCounts:
    """What MLflow lacked: whole runs, epochs of trials, and true statuses of runs that were there."""

    runs_created: int
    epochs_added: int
    statuses_mended: int


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What is to be brought to MLflow beside the study's files.

    Args:
        identity: the study's own, from the ledger.
        tags: tags of all its runs (spec hash, fingerprints).
        states: what the ledger says of all trials ever, and of the baseline.
        num_open: trials that are to be run yet.
        generator: the generator; None = it has not been trained yet.
    """

    identity: str
    tags: Mapping[str, str] = field(default_factory=dict)
    states: TrialStates
    num_open: int = 0
    generator: GeneratorRecord | None = None


def sync_study(paths: StudyPaths, uri: str, record: StudyRecord) -> SyncCounts:
    """Make the MLflow store at ``uri`` agree with the study's files and ledger, also where it is new and empty.

    Args:
        paths: the study's files.
        uri: the MLflow tracking URI.
        record: what the ledger and the artefact store know.

    Returns:
        What was missing; nothing where this was done before.

    Raises:
        StudyError: the store cannot be used, or does not answer now.
    """
    try:
        return _sync(paths, uri, record)
    except Exception as error:  # MLflow passes on whatever its store raises
        if not is_outage(uri, error):
            raise unusable(uri, error) from error
        raise StudyError(
            f"MLflow at {without_secrets(uri)} does not answer ({explain(error)}); run the same command again when "
            "it is back, nothing is lost meanwhile"
        ) from error


def _sync(paths: StudyPaths, uri: str, record: StudyRecord) -> SyncCounts:
    runs = StudyRuns(*open_experiment(paths, uri, record.identity), paths.name, record.identity)
    runs.load()
    contents = _contents(paths, record)
    tags = {**record.tags, **({"gitdist.generator": record.generator.name} if record.generator else {})}
    changes: dict[RunKey, Changes] = {}
    failures: list[Exception] = []
    for key, content in contents.items():
        try:
            changes[key] = runs.bring(key, content, tags, thorough=True)
        except Exception as error:  # a file that its place does not take, say, keeps no other run from being true
            failures.append(error)
            runs.probe()
    num_strays = runs.end_orphans(contents)
    if failures:
        raise failures[0]
    return _count(changes, num_strays)


def _contents(paths: StudyPaths, record: StudyRecord) -> dict[RunKey, DesiredRun]:
    summary, times = read_summary(paths), Times(paths)
    status = study_status(record.states, record.num_open, finished=summary is not None)
    contents = {STUDY: study_content(paths, status, summary, times)}
    if record.generator is not None:
        span = partial(generator_span, paths, times)
        losses = loss_points(record.generator.steps, span().ended_at)  # the artefact does not have their times
        contents[GENERATOR] = generator_content(record.generator.params, losses, "FINISHED", span, paths.samples)
    return contents | trial_contents(paths, record.states, times)


def _count(changes: Mapping[RunKey, Changes], num_strays: int) -> SyncCounts:
    trials = [change for key, change in changes.items() if key not in (STUDY, GENERATOR)]
    return SyncCounts(
        runs_created=sum(change.created for change in changes.values()),
        epochs_added=sum(change.steps for change in trials),
        statuses_mended=sum(change.status for change in changes.values()) + num_strays,
    )
