"""The search algorithms by ``search.algorithm``: Optuna's samplers, and our settings of them.

``module:attribute`` names any other sampler. ``search.options`` override the settings. A sampler that takes a seed gets
``search.seed``.
"""

from collections.abc import Callable, Mapping
from typing import Any

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from gitdist.spec import SearchSpec
from gitdist.study.ledger.optuna_parts import build_part


def _tpe_settings(search: SearchSpec) -> dict[str, Any]:
    return {
        "n_startup_trials": search.startup_trials,
        "multivariate": True,
        "group": any(dimension.when for dimension in search.space.values()),
        "constant_liar": True,
    }


def _gp_settings(search: SearchSpec) -> dict[str, Any]:
    return {"n_startup_trials": search.startup_trials}


def _nsga2_settings(search: SearchSpec) -> dict[str, Any]:
    """Five generations or more: Optuna's 50 trials per generation exceed many a search."""
    return {"population_size": min(50, max(4, search.total // 5))}


ALGORITHMS: Mapping[str, tuple[Callable[..., BaseSampler], Callable[[SearchSpec], dict[str, Any]]]] = {
    "tpe": (TPESampler, _tpe_settings),
    "gp": (GPSampler, _gp_settings),
    "nsga2": (NSGAIISampler, _nsga2_settings),
    "random": (RandomSampler, lambda search: {}),
    "grid": (RandomSampler, lambda search: {}),  # its points are a plan, see ``point_plan``
}


def build_sampler(search: SearchSpec) -> BaseSampler:
    """Return a new sampler of a search.

    Raises:
        SpecError: the sampler of another package cannot be imported or built, or ``search.options`` do not fit.
    """
    name = search.resolved_algorithm
    known, settings = ALGORITHMS.get(name, (None, lambda search: {}))
    given = {"seed": search.seed % 2**32, **settings(search)}
    return build_part(BaseSampler, "search.algorithm", name, known, search.options, given)
