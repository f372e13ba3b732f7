"""The search part of a study file: algorithm, objectives, pruner and the space over trial fields."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator, model_validator

from gitdist.spec.base import (
    ATTRIBUTE,
    MANY,
    MANY_EPOCHS,
    MANY_TRIALS,
    List,
    Options,
    Seed,
    Spec,
    Text,
    name_or,
    unknown_name,
)
from gitdist.spec.dimension import Dimension, dependency_order, max_grid_points
from gitdist.spec.objective import (
    Constraint,
    Direction,
    Objective,
    ObjectivesOfFile,
    check_reachable,
    read_objectives,
)
from gitdist.spec.trial import TrialSpec

Algorithm = Literal["tpe", "gp", "nsga2", "random", "grid", "auto"]
PrunerKind = Literal["none", "median", "percentile", "successive-halving", "hyperband", "patient", "threshold"]
_MAX_GP_TRIALS = 100  # the time of a suggestion grows with the third power of the trials

_Trials = Annotated[int, Field(ge=1, le=MANY_TRIALS)]
_Bound = Annotated[float, Field(ge=-MANY, le=MANY)]
METHOD = "method"  # the dimension over the study's named methods
SEED = "seed"  # the trial field in which replicates differ


class PrunerSpec(Spec):
    """Which trials end early. Epochs count from the switch on: before it all trials are equal."""

    kind: Annotated[str, name_or(get_args(PrunerKind), ATTRIBUTE)] = "none"
    """Which trials end early: none, those worse than the median or a percentile, successive-halving, hyperband, those
    whose value stops improving (patient), those beyond a threshold, or another Optuna pruner as module:attribute."""
    options: Options = {}
    """Further keyword arguments of Optuna's pruner."""
    min_epochs: int = Field(5, ge=1, le=MANY_EPOCHS)
    """Epochs after switch_epoch before the first decision."""
    reduction_factor: int = Field(3, ge=2, le=1000)
    """successive-halving, hyperband: one in this many trials continues."""
    startup: _Trials = 5
    """median, percentile: trials that end before the pruner starts."""
    percentile: float = Field(25.0, ge=0, le=100)
    """percentile: the best share of trials, in percent, continues."""
    patience: int = Field(5, ge=0, le=MANY_EPOCHS)
    """patient: epochs without a better value before `wraps` decides."""
    wraps: PrunerKind = "none"
    """patient: the pruner that decides then; none: the trial ends."""
    lower: _Bound | None = None
    """threshold: a trial ends below this value of the objective."""
    upper: _Bound | None = None
    """threshold: a trial ends above this value of the objective."""

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        return _known(value, "pruner", get_args(PrunerKind))

    @model_validator(mode="after")
    def _complete(self) -> "PrunerSpec":
        deciding = self.wraps if self.kind == "patient" else self.kind
        if deciding == "threshold" and self.lower is None and self.upper is None:
            raise ValueError("the threshold pruner needs a bound, but has none; set lower or upper")
        if self.kind == "patient" and self.wraps == "patient":
            raise ValueError("wraps must name another pruner than patient itself")
        return self


class SearchSpec(Spec):
    """What is searched, by which algorithm, for which objectives."""

    total: int = Field(8, ge=0, le=MANY_TRIALS)
    """Number of trials; fewer if the space has fewer points, of which each is then tried once by every algorithm. 0,
    with baseline false: only prepare the data and train the generator."""
    objective: Annotated[
        tuple[Objective, ...], List, BeforeValidator(read_objectives, json_schema_input_type=ObjectivesOfFile)
    ] = (Objective(metric="val/balanced_accuracy", direction="maximize"),)
    """What is searched for: a metric on validation, a list of them, or a mapping of metrics to maximize or minimize; of
    several the Pareto front is found."""
    constraints: Annotated[tuple[Constraint, ...], List, Field(max_length=100)] = ()
    """Bounds that the best trial must keep, such as few_accuracy >= 0.5."""
    algorithm: Annotated[str, name_or(get_args(Algorithm), ATTRIBUTE)] = "tpe"
    """What suggests trials: tpe, gp, nsga2, random, grid; auto: gp for ranges alone and at most 100 trials, else tpe;
    or another Optuna sampler as module:attribute."""
    options: Options = {}
    """Keyword arguments of Optuna's sampler."""
    startup: _Trials | None = None
    """Random trials before tpe or gp starts; null: a third of total, 10 at most."""
    replicates: int = Field(1, ge=1, le=100)
    """Trials of each point, with the seeds trial.seed, trial.seed + 1 and so on; the search reads the means of their
    objectives, and total counts points."""
    space: dict[str, Dimension] = {}
    """The searched fields of trial, each with its range or its choices."""
    try_first: Annotated[tuple[dict[str, Any], ...], List, Field(max_length=1000)] = ()
    """Points to try before any suggestion; fields that are left out are suggested."""
    pruner: PrunerSpec = PrunerSpec()
    """What ends trials early."""
    warm_start: Text | None = None
    """Another study, by its name in the same results or its directory, whose trials the search reads from the start."""
    lag: _Trials | None = None
    """Suggest trial n from trials 0 to n - lag alone, so that parallel trials give the same suggestions in any order;
    null: from all that have ended."""
    # Stop rules: once one holds, no trial starts any more, although there are fewer than `total`
    max_hours: float | None = Field(None, gt=0, le=1_000_000)
    """Start no trial after this many hours of work, of all runs of the study."""
    patience: _Trials | None = None
    """Start no trial after this many without a better one or a change of the Pareto front."""
    target: float | None = Field(None, ge=0, le=1_000_000_000)
    """Start no trial once the first objective has reached this value."""
    seed: Seed = 0
    """Seed of the suggestions; default: the study's seed."""

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, value: str) -> str:
        return _known(value, "algorithm", get_args(Algorithm))

    @field_validator("objective")
    @classmethod
    def _distinct_objectives(cls, value: tuple[Objective, ...]) -> tuple[Objective, ...]:
        if not value or len({each.metric for each in value}) < len(value):
            raise ValueError("at least one objective is required, and each only once")
        return value

    @field_validator("constraints")
    @classmethod
    def _distinct_bounds(cls, value: tuple[Constraint, ...]) -> tuple[Constraint, ...]:
        limits = {(each.metric, each.bound): each.limit for each in value}
        if len(limits) < len(value):
            raise ValueError("each metric may have one lower and one upper bound; remove the others")
        for (metric, bound), limit in limits.items():
            if bound == ">=" and limit > limits.get((metric, "<="), math.inf):
                raise ValueError(f"no trial can keep both bounds on {metric}; lower the lower one")
        return value

    @field_validator("warm_start")
    @classmethod
    def _local(cls, study: str | None) -> str | None:
        if study is not None and "://" in study:
            raise ValueError(f"must be the name of a study in the same results, or its directory, but it is '{study}'")
        return study

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
        if self.replicates > 1 and (self.pruner.kind != "none" or SEED in self.space):
            what = f"pruner {self.pruner.kind}" if self.pruner.kind != "none" else "space.seed"
            raise ValueError(
                f"replicates compares points by the means of complete trainings with its own seeds, so {what} must not "
                "be set; remove it, or set replicates to 1"
            )
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
        if self.algorithm == "grid" and self.options:
            raise ValueError("a grid has no options, but search.options is set; remove it, or choose another algorithm")
        if self.warm_start is not None and self.algorithm in ("grid", "random"):
            raise ValueError(
                f"warm_start needs an algorithm that reads earlier trials, but search.algorithm is {self.algorithm}; "
                "remove warm_start, or choose another algorithm"
            )
        if self.target is not None and self.directions[0] == "maximize":
            check_reachable(self.objectives[0], self.target)
        if len(self.try_first) > self.total:
            raise ValueError(f"try_first has {len(self.try_first)} points, but total is {self.total}; raise total")
        for index, point in enumerate(self.try_first):
            check_point(f"try_first.{index}", point, self.space)
        return self

    @property
    def objectives(self) -> tuple[str, ...]:
        """The names of all objectives."""
        return tuple(each.metric for each in self.objective)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """Whether each objective is maximised or minimised."""
        return tuple(each.direction for each in self.objective)

    @property
    def direction_by_objective(self) -> dict[str, Direction]:
        """The direction of each objective by its name."""
        return dict(zip(self.objectives, self.directions, strict=True))

    @property
    def may_stop(self) -> bool:
        """Whether the outcomes of trials may stop the search before its total."""
        return self.patience is not None or self.target is not None

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields in which trials differ."""
        return (*self.space, *([SEED] if self.replicates > 1 else []))

    @property
    def resolved_algorithm(self) -> str:
        """The algorithm that is used: ``algorithm``, or the one that ``auto`` selects."""
        if self.algorithm != "auto":
            return self.algorithm
        only_ranges = all(dimension.bounds and not dimension.when for dimension in self.space.values())
        return "gp" if only_ranges and self.total <= _MAX_GP_TRIALS else "tpe"

    @property
    def startup_trials(self) -> int:
        """The number of random trials before TPE or GP starts."""
        return self.startup or min(10, math.ceil(self.total / 3))


def _known(name: str, what: str, names: tuple[str, ...]) -> str:
    """Return a name that is one of ``names`` or has the form ``module:attribute``."""
    if name not in names and not all(name.partition(":")):
        raise ValueError(unknown_name(what, name, [*names, "module:attribute"]))
    return name


def check_point(path: str, point: Mapping[str, Any], space: Mapping[str, Dimension]) -> None:
    """Refuse values of a point that a search would not suggest; fields may be left out.

    Args:
        path: where the point is, for messages.
        point: values by searched field.
        space: the search's.

    Raises:
        ValueError: a field is not searched, or not together with the point's other values, or a value is not in range.
    """
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
