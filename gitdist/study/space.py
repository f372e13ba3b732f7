"""The search space: trial fields as Optuna distributions, and parameters back as a trial spec."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from gitdist.errors import TrialFailure
from gitdist.seeds import derive_seed
from gitdist.spec import Dimension, SearchSpec, TrialSpec


def distributions(space: Mapping[str, Dimension]) -> dict[str, BaseDistribution]:
    """Return each searched field's Optuna distribution, in the order of the study file."""
    return {name: _distribution(dimension) for name, dimension in space.items()}


def grid_points(space: Mapping[str, Dimension]) -> dict[str, list[Any]]:
    """Return each field's grid values: all choices, or ``points`` values spread over a range."""
    return {name: _points(dimension) for name, dimension in space.items()}


def grid_size(space: Mapping[str, Dimension]) -> int:
    """Return the number of points of the whole grid."""
    return math.prod(len(points) for points in grid_points(space).values())


def build_sampler(search: SearchSpec, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that proposes trial ``number``.

    Each number has a seed of its own, so a proposal depends on the finished trials and the number alone, not on how
    many proposals this process made before.
    """
    seed = derive_seed(search.seed, "search/sampler", number) % 2**32
    if search.algorithm == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if search.algorithm == "grid":
        return optuna.samplers.GridSampler(grid_points(search.space), seed=search.seed)
    return optuna.samplers.TPESampler(
        seed=seed, n_startup_trials=search.startup_trials, multivariate=True, constant_liar=True
    )


def trial_spec(base: TrialSpec, params: Mapping[str, Any]) -> TrialSpec:
    """Return the trial that searched parameters make of the study's ``trial`` part.

    Raises:
        TrialFailure: the combination breaks a rule that no single value breaks.
    """
    try:
        return TrialSpec.model_validate({**base.model_dump(), **params})
    except ValueError as error:
        raise TrialFailure(str(error)) from None


def baseline_spec(base: TrialSpec) -> TrialSpec:
    """Return the study's ``trial`` part without augmentation."""
    return base.model_copy(update={"fraction": 0.0})


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.int_ is not None:
        return IntDistribution(*dimension.int_, log=dimension.log, step=int(dimension.step or 1))
    if dimension.float_ is not None:
        return FloatDistribution(*dimension.float_, log=dimension.log, step=dimension.step)
    return CategoricalDistribution(dimension.choice or ())


def _points(dimension: Dimension) -> list[Any]:
    bounds = dimension.int_ or dimension.float_
    if bounds is None:
        return list(dimension.choice or ())
    if dimension.step is not None:
        num_steps = math.floor((bounds[1] - bounds[0]) / dimension.step + 1e-9)
        values = bounds[0] + dimension.step * np.arange(num_steps + 1)
    else:
        values = (np.geomspace if dimension.log else np.linspace)(float(bounds[0]), float(bounds[1]), dimension.points)
    if dimension.int_ is not None:
        return sorted({int(round(value)) for value in values})
    return [float(value) for value in values]
