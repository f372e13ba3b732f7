"""A whole study file."""

import re
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from gitdist.spec.base import Positive, Spec
from gitdist.spec.data import DataSpec
from gitdist.spec.generator import GeneratorSpec, MunitSpec, StreamSpec
from gitdist.spec.search import SearchSpec
from gitdist.spec.trial import EvaluationSpec, TrialSpec

RESERVED_NAMES = ("store", "mlflow.db", "mlartifacts")  # what else lies in a results directory


class Share(Spec):
    """What one process of a kind takes of the cluster."""

    cpu: float = Field(1.0, gt=0)
    gpu: float = Field(0.0, ge=0)

    @property
    def device(self) -> str | None:
        """The device of such a process: the processor without a share of a GPU, else the GPU if one is visible."""
        return None if self.gpu else "cpu"


class ResourcesSpec(Spec):
    """Who gets what. torch threads of a process = its whole CPUs, at least one."""

    trial: Share = Share()
    server: Share = Share()
    training: Share = Share(cpu=2)  # of the generator; nothing else runs meanwhile
    max_concurrent: Positive | None = None  # trials at once; None = as many as fit


class TrackingSpec(Spec):
    """Where MLflow records go."""

    uri: str | None = None  # None = $MLFLOW_TRACKING_URI, else RESULTS/mlflow.db


class StudySpec(Spec):
    """A whole study file."""

    name: str
    seed: int = 0  # of stream, trial, search and evaluation where their own is not given; the generator has its own
    data: DataSpec = DataSpec()
    generator: GeneratorSpec = MunitSpec()
    stream: StreamSpec = StreamSpec()
    trial: TrialSpec = TrialSpec()
    search: SearchSpec = SearchSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
    resources: ResourcesSpec = ResourcesSpec()
    tracking: TrackingSpec = TrackingSpec()

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value) or value in RESERVED_NAMES:
            raise ValueError(
                "a study's name is a folder: up to 64 letters, digits, '.', '_', '-', "
                f"none of {', '.join(RESERVED_NAMES)}"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _spread_seed(cls, values: Any) -> Any:
        """Give the study's seed to every part that has none of its own."""
        if not isinstance(values, dict) or not values.get("seed"):
            return values
        spread = dict(values)
        for part in ("stream", "trial", "search", "evaluation"):
            inner = spread.get(part) or {}
            if isinstance(inner, dict):
                spread[part] = {"seed": values["seed"], **inner}
        return spread

    @model_validator(mode="after")
    def _parts_agree(self) -> "StudySpec":
        if self.generator.kind == "oracle" and self.data.nuisance == "none":
            raise ValueError("generator.kind 'oracle' needs a known nuisance, but data.nuisance is 'none'")
        for name, dimension in self.search.space.items():
            for value in dimension.extremes:
                self._check_searched(name, value)
        return self

    def _check_searched(self, name: str, value: Any) -> None:
        try:
            TrialSpec.model_validate({**self.trial.model_dump(), name: value})
        except ValidationError as error:
            rule = error.errors()[0]["msg"].replace("Input should be", "must be")
            raise ValueError(f"search.space.{name}: trial.{name} {rule}, but the space holds {value!r}") from None
