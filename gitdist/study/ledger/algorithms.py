"""The search algorithms by ``search.algorithm``: how each builds its Optuna sampler.

module:attribute   any callable of another package that returns an Optuna sampler, given ``search.options`` and,
                   if it takes one, the seed
"""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from gitdist.errors import SpecError
from gitdist.plugins import describe_raised, load_attribute
from gitdist.spec import SearchSpec

ENTRY_POINTS = "gitdist.samplers"


def _tpe_options(search: SearchSpec) -> dict[str, Any]:
    return {
        "n_startup_trials": search.startup_trials,
        "multivariate": True,
        "group": any(dimension.when for dimension in search.space.values()),
        "constant_liar": True,
    }


def _gp_options(search: SearchSpec) -> dict[str, Any]:
    return {"n_startup_trials": search.startup_trials}


def _nsga2_options(search: SearchSpec) -> dict[str, Any]:
    """Five generations or more: Optuna's 50 trials per generation exceed many a search."""
    return {"population_size": min(50, max(4, search.total // 5))}


ALGORITHMS: Mapping[str, tuple[Callable[..., BaseSampler], Callable[[SearchSpec], dict[str, Any]]]] = {
    "tpe": (TPESampler, _tpe_options),
    "gp": (GPSampler, _gp_options),
    "nsga2": (NSGAIISampler, _nsga2_options),
    "random": (RandomSampler, lambda search: {}),
    "grid": (RandomSampler, lambda search: {}),  # its points are a plan, see ``point_plan``
}
"""Optuna's samplers and our settings of them, which ``search.options`` override."""


def build_sampler(search: SearchSpec) -> BaseSampler:
    """Return a new sampler of a search, with ``search.seed``.

    Raises:
        SpecError: the sampler of another package cannot be imported or built, or ``search.options`` do not fit.
    """
    name = search.resolved_algorithm
    if name in ALGORITHMS:
        build, own_options = ALGORITHMS[name]
        options = own_options(search) | search.options
    else:
        build, options = load_attribute(name, ENTRY_POINTS, "search.algorithm"), dict(search.options)
    if "seed" in _parameters(build):
        options.setdefault("seed", search.seed % 2**32)
    try:
        with warnings.catch_warnings():  # some samplers and options are marked experimental; nothing else is silenced
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = build(**options)
    except Exception as error:
        raise SpecError(
            f"search.algorithm '{name}' cannot be built with search.options {search.options}: "
            f"{describe_raised(error)}; correct the options, or install the package that it names"
        ) from error
    if not isinstance(sampler, BaseSampler):
        raise SpecError(
            f"search.algorithm '{name}' must give an Optuna sampler, but gives {type(sampler).__name__}; "
            "name a sampler's class, or a function that returns a sampler"
        )
    return sampler


def _parameters(build: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(build).parameters
    except (TypeError, ValueError):  # not callable, or it does not tell
        return {}
