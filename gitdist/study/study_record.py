"""What a study's ledger and files say of all of it, without its data or a driver."""

from contextlib import suppress
from pathlib import Path

from gitdist.errors import StoreError, StudyError
from gitdist.spec import StudySpec
from gitdist.store import content_key
from gitdist.study.compatibility import determining
from gitdist.study.files.layout import StudyPaths, open_store
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.trial_states import GENERATOR, trial_states
from gitdist.study.monitoring.mlflow.sync import GeneratorRecord, StudyRecord
from gitdist.study.resources.generator import past_steps


def read_study_record(paths: StudyPaths, spec: StudySpec, ledger: Ledger) -> StudyRecord:
    """Return all that MLflow should have of a study.

    Raises:
        StudyError: its driver was killed before the study had any record.
    """
    identity, fingerprint = ledger.recall("identity"), ledger.recall("data")
    if identity is None or fingerprint is None:
        raise StudyError(f"study '{spec.name}' in {paths.place} has not started any trial yet; `gitdist run` does")
    name = ledger.recall(GENERATOR)
    generator = None
    if name is not None:
        steps = past_steps(_artefact(paths, spec, name))
        generator = GeneratorRecord(name=name, params=spec.generator.model_dump(), steps=steps)
    return StudyRecord(
        num_open=ledger.num_open(),
        identity=identity,
        tags=study_tags(spec, fingerprint),
        states=trial_states(paths, spec, ledger),
        generator=generator,
    )


def _artefact(paths: StudyPaths, spec: StudySpec, name: str) -> Path:
    directory = paths.store / "generator" / name
    if paths.mirror is not None and not directory.exists():
        with suppress(StoreError):  # it has no weights, or is kept there no more
            return open_store(paths, spec).resolve_locally(directory)
    return directory


def study_tags(spec: StudySpec, fingerprint: str) -> dict[str, str]:
    """Return the tags of all runs of a study: what determines its results, and its data."""
    return {"gitdist.spec": content_key("study", determining(spec)), "gitdist.data": fingerprint}
