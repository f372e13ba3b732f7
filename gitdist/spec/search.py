"""The search part of a study file: algorithm, objective and the space over trial fields."""

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gitdist.spec.base import Positive, Spec, unknown_name
from gitdist.spec.trial import TrialSpec

OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "val/balanced_accuracy": "maximize",
    "val/few_accuracy": "maximize",
    "val/ekld": "minimize",
}


class Dimension(Spec):
    """One searched trial field: exactly one of ``int: [low, high]``, ``float: [low, high]``, ``choice: [...]``."""

    int_: tuple[int, int] | None = Field(None, alias="int")
    float_: tuple[float, float] | None = Field(None, alias="float")
    choice: tuple[str | int | float | bool | None, ...] | None = Field(None, min_length=1)
    log: bool = False
    step: Annotated[float, Field(gt=0)] | None = None
    points: Positive = 4  # grid: values taken from a range

    @model_validator(mode="after")
    def _one_kind(self) -> "Dimension":
        if sum(kind is not None for kind in (self.int_, self.float_, self.choice)) != 1:
            raise ValueError("a dimension has exactly one of int, float, choice")
        bounds = self.int_ or self.float_
        if bounds and not bounds[0] < bounds[1]:
            raise ValueError(f"the lower bound must be below the upper one, but {bounds[0]} >= {bounds[1]}")
        if bounds and self.log and bounds[0] <= 0:
            raise ValueError(f"a log range must be above 0, but starts at {bounds[0]}")
        if self.int_ and self.step and self.step != int(self.step):
            raise ValueError(f"the step of an int range must be whole, but it is {self.step}")
        if self.log and (self.step or self.choice):
            raise ValueError("log goes with int or float and without step")
        return self

    @property
    def extremes(self) -> tuple[str | int | float | bool | None, ...]:
        """The bounds of a range, or all choices: the values whose validity implies that of all others."""
        return self.choice or self.int_ or self.float_ or ()


class SearchSpec(Spec):
    """What is searched, by which algorithm, for which objective."""

    total: Positive = 8  # search trials; a grid may have fewer
    objective: str = "val/balanced_accuracy"
    algorithm: Literal["tpe", "random", "grid"] = "tpe"
    startup: Positive | None = None  # random trials before TPE starts; None = a third of total, 10 at most
    space: dict[str, Dimension] = {}
    seed: int = 0

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, value: str) -> str:
        if value not in OBJECTIVES:
            raise ValueError(unknown_name("objective", value, list(OBJECTIVES)))
        return value

    @field_validator("space")
    @classmethod
    def _known_fields(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        for name in space:
            if name not in TrialSpec.model_fields:
                raise ValueError(unknown_name("trial field", name, list(TrialSpec.model_fields)))
        return space

    @property
    def startup_trials(self) -> int:
        """The number of random trials before TPE starts."""
        return self.startup or min(10, math.ceil(self.total / 3))
