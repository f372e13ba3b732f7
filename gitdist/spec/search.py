"""The search part of a study file: algorithm, objectives, pruner and the space over trial fields."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from gitdist.spec.base import MANY_EPOCHS, MANY_TRIALS, List, Seed, Spec, unknown_name
from gitdist.spec.dimension import Dimension, dependency_order, max_grid_points
from gitdist.spec.trial import TrialSpec

OBJECTIVES: dict[str, Literal["maximize", "minimize"]] = {
    "val/balanced_accuracy": "maximize",
    "val/few_accuracy": "maximize",
    "val/ekld": "minimize",
}

_Trials = Annotated[int, Field(ge=1, le=MANY_TRIALS)]
METHOD = "method"  # the dimension over the study's named methods


class PrunerSpec(Spec):
    """Which trials end early. Epochs count from the switch on: before it all trials are equal."""

    kind: Literal["none", "successive-halving", "hyperband", "median"] = "none"
    min_epochs: int = Field(5, ge=1, le=MANY_EPOCHS)  # after the switch, before the first decision
    reduction_factor: int = Field(3, ge=2, le=1000)  # halving, hyperband: one in this many trials continues
    startup: _Trials = 5  # median: trials that end before it prunes


class SearchSpec(Spec):
    """What is searched, by which algorithm, for which objectives."""

    # search trials, fewer if the space has fewer points; 0 = only data and generator
    total: int = Field(8, ge=0, le=MANY_TRIALS)
    objective: str | Annotated[tuple[str, ...], List] = "val/balanced_accuracy"  # several: the Pareto front is found
    algorithm: Literal["tpe", "random", "grid"] = "tpe"
    startup: _Trials | None = None  # random trials before TPE starts; None = a third of total, 10 at most
    space: dict[str, Dimension] = {}
    # points tried before any suggestion; fields left out are suggested
    try_first: Annotated[tuple[dict[str, Any], ...], List, Field(max_length=1000)] = ()
    pruner: PrunerSpec = PrunerSpec()
    lag: _Trials | None = None  # trial n is suggested from trials 0 to n - lag alone; None = from all that have ended
    seed: Seed = 0

    @field_validator("objective")
    @classmethod
    def _known_objectives(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        names = _listed(value)
        for name in names:
            if name not in OBJECTIVES:
                raise ValueError(unknown_name("objective", name, list(OBJECTIVES)))
        if not names or len(set(names)) < len(names):
            raise ValueError("at least one objective is required, and each only once")
        return value

    @field_validator("space")
    @classmethod
    def _known_fields(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        for name in space:
            if name not in (METHOD, *TrialSpec.model_fields):
                raise ValueError(unknown_name("trial field", name, list(TrialSpec.model_fields)))
        dependency_order(space)
        return space

    @model_validator(mode="after")
    def _parts_agree(self) -> "SearchSpec":
        if self.pruner.kind != "none" and len(self.objectives) > 1:
            raise ValueError(
                f"pruner {self.pruner.kind} requires one objective, but there are {len(self.objectives)}; "
                "remove the pruner or name one objective"
            )
        if self.algorithm == "grid" and max_grid_points(self.space, MANY_TRIALS) > MANY_TRIALS:
            raise ValueError(
                f"a grid must have at most {MANY_TRIALS:,} points, but that of search.space has more; lower the points "
                "or raise the steps of its ranges, or set search.algorithm to random"
            )
        if len(self.try_first) > self.total:
            raise ValueError(f"try_first has {len(self.try_first)} points, but total is {self.total}; raise total")
        for index, point in enumerate(self.try_first):
            check_point(f"try_first.{index}", point, self.space)
        return self

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of all objectives."""
        return _listed(self.objective)

    @property
    def directions(self) -> tuple[Literal["maximize", "minimize"], ...]:
        """Whether each objective is maximised or minimised."""
        return tuple(OBJECTIVES[name] for name in self.objectives)

    @property
    def startup_trials(self) -> int:
        """The number of random trials before TPE starts."""
        return self.startup or min(10, math.ceil(self.total / 3))


def _listed(objective: str | tuple[str, ...]) -> tuple[str, ...]:
    return (objective,) if isinstance(objective, str) else objective


def check_point(path: str, point: Mapping[str, Any], space: Mapping[str, Dimension]) -> None:
    """Raise ValueError if a point, named ``path`` in messages, has a field or value that the space lacks."""
    for name, value in point.items():
        if name not in space:
            raise ValueError(f"{path}: " + unknown_name("searched field", name, list(space)))
        dimension = space[name]
        if not dimension.contains(value):
            allowed = list(dimension.extremes)
            rule = f"be one of {allowed}" if dimension.choice else f"lie in the searched range {allowed}, on its steps"
            raise ValueError(f"{path}.{name} must {rule}, but it is {value!r}")
        given = {other: point[other] for other in dimension.when if other in point}
        if not all(point[other] in dimension.when[other] for other in given):
            raise ValueError(f"{path}.{name} is not searched with {given}; remove it from the point")
