"""The search space: Optuna distributions, grid points, and the importance of its fields."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import create_trial

from gitdist.seeds import numpy_rng
from gitdist.spec import Dimension, SearchSpec
from gitdist.spec.dimension import dependency_order, num_steps


def distribution(dimension: Dimension) -> BaseDistribution:
    """Return a searched field's Optuna distribution."""
    if dimension.bounds is None:
        return CategoricalDistribution(dimension.choice or ())
    low, high = dimension.bounds
    if dimension.step is not None:
        high = _step_value(low, dimension.step, num_steps(low, high, dimension.step))
    if dimension.int_ is not None:
        return IntDistribution(int(low), int(high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(low, high, log=dimension.log, step=dimension.step)


def grid_points(space: Mapping[str, Dimension]) -> list[dict[str, Any]]:
    """Return the points of the grid, each once; a point has only the fields that are searched there."""
    points: list[dict[str, Any]] = [{}]
    for name in dependency_order(space):
        points = _extend(points, name, space[name], _grid_values(space[name]))
    return points


def grid_plan(search: SearchSpec) -> list[dict[str, Any]]:
    """Return the points of a grid search in the order of their trials: ``try_first``, then the rest shuffled."""
    return _order_points(search, grid_points(search.space))


def point_plan(search: SearchSpec) -> list[dict[str, Any]] | None:
    """Return the points to try, each once; None if the algorithm's sampler suggests them.

    A grid has such a plan. So has a space of at most ``search.total`` points with any algorithm: a point tried twice
    would take the trial of another point.
    """
    if search.algorithm == "grid":
        return grid_plan(search)
    points = _all_points(search.space, search.total)
    return None if points is None else _order_points(search, points)


def point_key(point: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return a key that equal points share; floats are rounded to 12 digits."""
    shown = {name: f"{value:.12g}" if isinstance(value, float) else repr(value) for name, value in point.items()}
    return tuple(sorted(shown.items()))


def _order_points(search: SearchSpec, grid: list[dict[str, Any]]) -> list[dict[str, Any]]:
    grid = [grid[index] for index in numpy_rng(search.seed, "search/grid").permutation(len(grid))]
    plan: list[dict[str, Any]] = []
    for fixed in search.try_first:
        merged = (_merge(point, fixed, search.space) for point in grid)
        plan += next(([point] for point in merged if point is not None and point not in plan), [])
    return plan + [point for point in grid if point not in plan[: len(search.try_first)]]


def num_omitted_points(search: SearchSpec) -> int:
    """Return how many points of a grid exceed ``search.total``."""
    return max(0, len(grid_points(search.space)) - search.total) if search.algorithm == "grid" else 0


def field_importances(
    search: SearchSpec, fields: Sequence[str], trials: Iterable[tuple[Mapping[str, Any], float]]
) -> dict[str, float]:
    """Return the share of importance of searched fields for the first objective, the largest first.

    By PED-ANOVA (Watanabe et al. 2023), Optuna's default, which measures in which fields the better trials agree.

    Args:
        search: the search part of the spec.
        fields: at least two fields of the search space.
        trials: searched parameters and first objective of each, at least two.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction=search.directions[0])
    for params, value in trials:
        searched = {name: params[name] for name in fields if name in params}
        distributions = {name: distribution(search.space[name]) for name in searched}
        study.add_trial(create_trial(params=searched, distributions=distributions, value=value))
    shares = optuna.importance.get_param_importances(study)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _extend(points: list[dict[str, Any]], name: str, dimension: Dimension, values: list[Any]) -> list[dict[str, Any]]:
    return [
        extended
        for point in points
        for extended in ([{**point, name: value} for value in values] if dimension.applies(point) else [point])
    ]


def _all_points(space: Mapping[str, Dimension], max_count: int) -> list[dict[str, Any]] | None:
    """Return every point of a space; None if there are more than ``max_count``."""
    points: list[dict[str, Any]] = [{}]
    for name in dependency_order(space):
        values = _all_values(space[name], max_count)
        if values is None:
            return None
        points = _extend(points, name, space[name], values)
        if len(points) > max_count:
            return None
    return points


def _all_values(dimension: Dimension, max_count: int) -> list[Any] | None:
    """Return every value of a dimension; None if there are more than ``max_count``."""
    if dimension.bounds is None:
        return list(dimension.extremes)
    (low, high), step = dimension.bounds, dimension.step or (1 if dimension.int_ else None)
    if step is None or (high - low) / step >= max_count:
        return None
    values = _step_values(low, high, step)
    return values if dimension.int_ is None else [round(value) for value in values]


def _grid_values(dimension: Dimension) -> list[Any]:
    """Return all choices, or ``points`` values of a range."""
    if dimension.bounds is None:
        return list(dimension.extremes)
    low, high = dimension.bounds
    if dimension.step is not None:
        values = _step_values(low, high, dimension.step)
    else:
        spread = np.geomspace if dimension.log else np.linspace
        values = [float(value) for value in spread(float(low), float(high), dimension.points)]
    return values if dimension.int_ is None else sorted({round(value) for value in values})


def _step_values(low: float, high: float, step: float) -> list[float]:
    """Return low, low + step, ... up to high, in decimal arithmetic: 0.1 + 0.2 is 0.3."""
    return [_step_value(low, step, index) for index in range(num_steps(low, high, step) + 1)]


def _step_value(low: float, step: float, index: int) -> float:
    return float(Decimal(str(low)) + index * Decimal(str(step)))


def _merge(point: Mapping[str, Any], fixed: Mapping[str, Any], space: Mapping[str, Dimension]) -> dict[str, Any] | None:
    """Return a grid point with ``fixed`` values replaced; None if they activate a field that the point lacks."""
    merged: dict[str, Any] = {}
    for name in dependency_order(space):
        if space[name].applies(merged):
            if name not in fixed and name not in point:
                return None
            merged[name] = fixed[name] if name in fixed else point[name]
    return merged
