"""The metrics on validation that a row has, and what a search makes of them: objectives and constraints."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, WithJsonSchema, field_validator, model_validator
from pydantic_core import CoreSchema

from gitdist.spec.base import Spec, unknown_name

Direction = Literal["maximize", "minimize"]

_VALIDATION = "val/"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CONSTRAINT = re.compile(rf"\s*(?P<metric>[^\s<>=]+)\s*(?P<bound>>=|<=)\s*(?P<limit>{_NUMBER})\s*", re.ASCII)


def standard_error_name(metric: str) -> str:
    """Return the name in a row of the standard error of a metric: ``val/ekld_se`` of ``val/ekld``."""
    return f"{metric}_se"


VALIDATION_MEANS: Mapping[str, Direction] = {
    "val/balanced_accuracy": "maximize",
    "val/many_accuracy": "maximize",
    "val/medium_accuracy": "maximize",
    "val/few_accuracy": "maximize",
    "val/ekld": "minimize",
    "val/consistency": "maximize",
}
"""The metrics without standard errors, and the direction in which each is better."""

VALIDATION_METRICS: Mapping[str, Direction] = {
    **VALIDATION_MEANS,
    **{standard_error_name(name): "minimize" for name in VALIDATION_MEANS},
}
"""The single numbers on validation in the row of an evaluated epoch, and the direction in which each is better.

Those to maximise are shares in 0..1. An accuracy of a shot group is missing if no class of the group has a validation
image, and a standard error if it cannot be estimated.
"""


_SHORT_METRICS = [name.removeprefix(_VALIDATION) for name in VALIDATION_METRICS]
Metric = Annotated[str, WithJsonSchema({"enum": [*VALIDATION_METRICS, *_SHORT_METRICS]})]


class Objective(Spec):
    """A metric on validation that the search maximises or minimises."""

    metric: Metric
    """A metric on validation; `val/` may be left out."""
    direction: Direction
    """Whether more or less of it is better."""

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, name: str) -> str:
        return known_metric(name)


ObjectivesOfFile = Metric | list[Metric | Objective] | dict[Metric, Direction]
"""What a study file has as objectives."""


class Constraint(Spec):
    """A bound on a metric on validation that the best trial must keep."""

    metric: Metric
    """A metric on validation; `val/` may be left out."""
    bound: Literal[">=", "<="]
    """Whether the limit is a lower or an upper one."""
    limit: float = Field(ge=0, le=1_000_000_000)
    """The limit, included."""

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = _CONSTRAINT.fullmatch(value)
        if parts is None:
            raise ValueError(
                f"must be METRIC >= NUMBER or METRIC <= NUMBER, such as few_accuracy >= 0.5, but it is '{value}'"
            )
        return {**parts.groupdict(), "limit": float(parts["limit"])}

    @field_validator("metric")
    @classmethod
    def _known_metric(cls, name: str) -> str:
        return known_metric(name)

    @model_validator(mode="after")
    def _can_be_kept(self) -> "Constraint":
        if self.bound == ">=":
            check_reachable(self.metric, self.limit)
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add the text that a file has to the fields."""
        pattern = rf"^\s*({'|'.join(map(re.escape, (*VALIDATION_METRICS, *_SHORT_METRICS)))})\s*(>=|<=)\s*{_NUMBER}\s*$"
        return {"anyOf": [{"type": "string", "pattern": pattern}, handler(schema)]}

    def violation(self, value: float) -> float:
        """Return by how much a value of the metric violates the bound; 0 or less if it does not."""
        return self.limit - value if self.bound == ">=" else value - self.limit

    def __str__(self) -> str:
        return f"{self.metric} {self.bound} {self.limit:g}"


def known_metric(name: str) -> str:
    """Return the full name of a metric on validation, whose ``val/`` may be left out; raise ValueError if unknown."""
    short = name.removeprefix(_VALIDATION)
    if short not in _SHORT_METRICS:
        raise ValueError(unknown_name("metric", short, _SHORT_METRICS))
    return f"{_VALIDATION}{short}"


def check_reachable(metric: str, limit: float) -> None:
    """Raise ValueError if a metric cannot be as large as a limit."""
    if limit > 1 and VALIDATION_METRICS[metric] == "maximize":
        raise ValueError(f"{metric} lies in 0..1, so {limit:g} cannot be reached; state a share, not percent")


def read_objectives(value: Any) -> Any:
    """Return what a study file has as objectives in the form of a list of ``Objective``.

    A file has the name of a metric, a list of names, or a mapping of names to directions; a name alone has the
    direction of ``VALIDATION_METRICS``.
    """
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Mapping):
        return [{"metric": name, "direction": direction} for name, direction in value.items()]
    if not isinstance(value, list | tuple):
        raise ValueError("must be a metric, a list of metrics, or a mapping of metrics to maximize or minimize")
    return [
        {"metric": each, "direction": VALIDATION_METRICS[known_metric(each)]} if isinstance(each, str) else each
        for each in value
    ]
