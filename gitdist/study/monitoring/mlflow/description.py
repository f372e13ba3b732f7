"""What all runs of a study say of it: settings as parameters, hashes as tags, the data set as inputs, the source."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from mlflow.entities import Dataset, DatasetInput, InputTag
from mlflow.utils.git_utils import get_git_commit
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_GIT_COMMIT,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
)
from pydantic import BaseModel

from gitdist import __version__
from gitdist.errors import TrialFailedError
from gitdist.spec import StudySpec
from gitdist.study.compatibility import MAY_CHANGE, result_hash
from gitdist.study.summary import baseline_params

HASH = "hash."
"""First part of the names of tags with hashes, which come after ``gitdist.`` where tags are sorted by name."""

_DIGEST = 8  # characters of a digest, as MLflow's own
_PRUNER = "search.pruner."
_SEEDS = ("seed", "version")  # which are shown even if they are 0
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class StudyDescription:
    """What all runs of a study say of it.

    Attributes:
        spec: the study.
        fingerprint: of its data set.
        generator: name of the generator's artifact; None if it is not known yet.
        source: ``name`` and, if known, ``commit`` of what the study was started from, see ``find_source``.
    """

    spec: StudySpec
    fingerprint: str
    generator: str | None = None
    source: Mapping[str, str] = field(default_factory=dict)

    @property
    def hashes(self) -> dict[str, str]:
        """Tags that identify the spec, the data and the generator."""
        hashes = {f"{HASH}spec": result_hash(self.spec), f"{HASH}data": self.fingerprint}
        return hashes if self.generator is None else {**hashes, f"{HASH}generator": self.generator}

    @property
    def source_tags(self) -> dict[str, str]:
        """The tags that MLflow shows as the source of a run."""
        tags: dict[str, str] = {}
        if "name" in self.source:
            tags |= {MLFLOW_SOURCE_NAME: self.source["name"], MLFLOW_SOURCE_TYPE: "LOCAL"}
        if "commit" in self.source:
            tags[MLFLOW_GIT_COMMIT] = self.source["commit"]
        return tags

    def params(self, role: str, searched: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a run: ``searched`` fields by their own names, all others by their paths.

        Fields that are not set or off, and those that may change between runs of a study, are left out.
        """
        spec = self.spec
        if role == "generator":
            return dict(_flatten_parts({"generator": spec.generator, "data": spec.data}))
        rest = dict(_flatten_parts({"data": spec.data, "stream": spec.stream, "evaluation": spec.evaluation}))
        if role == "study":
            search = {f"search.space.{name}": _format_spec(each) for name, each in spec.search.space.items()}
            search |= {**dict(_flatten(spec.search, "search.")), "search.objective": ", ".join(spec.search.objectives)}
            if spec.search.pruner.kind == "none":
                search = {path: value for path, value in search.items() if not path.startswith(_PRUNER)}
            generator = dict(_flatten(spec.generator, "generator."))
            return {**search, **_trial_params(spec.trial, spec.search.space), **generator, **rest}
        trial = spec.trial
        if role == "baseline":
            searched = baseline_params(spec)
        else:
            with suppress(TrialFailedError):  # such a trial has failed
                trial = spec.trial_of(searched)
        shown = {name: value for name, value in searched.items() if value is not None}
        return {**shown, **_trial_params(trial, searched), "generator.kind": spec.generator.kind, **rest}

    def inputs(self) -> list[DatasetInput]:
        """Return the splits of the data set."""
        data = self.spec.data
        name = data.source if data.path is None else PurePath(data.path).name
        origin = json.dumps({"uri": data.source if data.path is None else data.path})
        profile = _format_spec(data)
        return [
            DatasetInput(
                Dataset(f"{name}/{split}", self.fingerprint[:_DIGEST], "local", origin, profile=profile),
                [InputTag(MLFLOW_DATASET_CONTEXT, split)],
            )
            for split in _SPLITS
        ]


def find_source(study_file: Path | None) -> dict[str, str]:
    """Return ``name`` (the study file, else gitdist) and ``commit`` (of the checkout that it lies in, if any)."""
    package = Path(__file__).parents[3]
    name = f"gitdist {__version__}" if study_file is None else str(study_file)
    commit = get_git_commit(str(study_file.absolute())) if study_file is not None else None
    if commit is None and (package.parent / ".git").exists():
        commit = get_git_commit(str(package))
    return {"name": name, **({"commit": commit} if commit else {})}


def _trial_params(trial: BaseModel, searched: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a trial that are not searched."""
    return {path: value for path, value in _flatten(trial, "trial.") if path.removeprefix("trial.") not in searched}


def _flatten_parts(parts: Mapping[str, BaseModel]) -> Iterator[tuple[str, Any]]:
    for name, part in parts.items():
        yield from _flatten(part, f"{name}.")


def _flatten(part: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a part of the spec that are set, by their paths."""
    for name, value in part:
        path = f"{prefix}{name}"
        if isinstance(value, BaseModel):
            yield from _flatten(value, f"{path}.")
        elif not (_is_off(part, name, value) or path in MAY_CHANGE or path == "search.space"):
            yield path, _format(value)


def _is_off(part: BaseModel, name: str, value: Any) -> bool:
    """Return whether a field is not set, or has its default of 0 or False: an option that is off."""
    if value in (None, (), {}):
        return True
    return not value and value == type(part).model_fields[name].default and name not in _SEEDS


def _format(value: Any) -> Any:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return json.dumps(value, default=str) if isinstance(value, dict) else value


def _format_spec(part: BaseModel) -> str:
    """Return the fields that differ from their defaults as JSON."""
    return json.dumps(part.model_dump(mode="json", by_alias=True, exclude_defaults=True))
