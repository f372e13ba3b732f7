"""The search algorithms: suggest the next trial's parameters, as a pure function of the search and earlier trials.

    a grid, or a space of at most ``total`` points --> the next point that was not tried
    else: the algorithm's sampler, on a study in memory with what it may read of the earlier trials
          (the points of ``try_first`` come first; the sampler suggests the fields that they leave out)

The study in memory keeps partial trials out of the ledger: a trial enters it with all of its parameters.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.seeds import derive_seed
from gitdist.spec import SearchSpec
from gitdist.spec.dimension import dependency_order
from gitdist.study.ledger.records import RETRY_OF
from gitdist.study.ledger.space import distribution, point_key, point_plan

Point = dict[str, Any]


@dataclass(frozen=True)
class Algorithm:
    """A search algorithm: an Optuna sampler, and whether it reads the earlier trials."""

    build_sampler: Callable[[SearchSpec, int], BaseSampler]  # given the search and a seed
    reads_past: bool = False


def _build_tpe(search: SearchSpec, seed: int) -> TPESampler:
    with warnings.catch_warnings():
        # multivariate, group and constant_liar are marked experimental; nothing else is silenced here
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(
            seed=seed,
            n_startup_trials=search.startup_trials,
            multivariate=True,
            group=any(dimension.when for dimension in search.space.values()),
            constant_liar=True,
        )


def _build_random(search: SearchSpec, seed: int) -> RandomSampler:
    return RandomSampler(seed=seed)


ALGORITHMS: Mapping[str, Algorithm] = {
    "tpe": Algorithm(_build_tpe, reads_past=True),
    "random": Algorithm(_build_random),
    "grid": Algorithm(_build_random),  # not used: ``point_plan`` has a point for every trial
}
"""The algorithms by ``search.algorithm``."""


def suggest(search: SearchSpec, past: Sequence[FrozenTrial], number: int) -> tuple[Point, dict[str, BaseDistribution]]:
    """Return the parameters of trial ``number`` and their distributions, both only for the fields searched in it.

    With ``search.lag`` the outcomes of the last lag - 1 trials of the past are not read.
    """
    plan = point_plan(search)
    if plan is None:
        index = number - sum(RETRY_OF in trial.user_attrs for trial in past)
        fixed = search.try_first[index] if index < len(search.try_first) else {}
    else:
        fixed = _untried(plan, past)[0]
    params: Point = {}
    distributions: dict[str, BaseDistribution] = {}
    trial = _study_in_memory(search, past, number).ask()
    for name in dependency_order(search.space):
        if search.space[name].applies(params):
            dimension = distributions[name] = distribution(search.space[name])
            if name in fixed:
                params[name] = dimension.to_external_repr(dimension.to_internal_repr(fixed[name]))
            else:
                params[name] = trial._suggest(name, dimension)  # as Study.ask does if nothing is conditional
    return params, distributions


def num_suggestions(search: SearchSpec, past: Sequence[FrozenTrial]) -> int:
    """Return how many trials a search has, including past ones but not retries."""
    plan = point_plan(search)
    if plan is None:
        return search.total
    suggested = sum(RETRY_OF not in trial.user_attrs for trial in past)
    return min(search.total, suggested + len(_untried(plan, past)))


def _untried(plan: Sequence[Point], past: Sequence[FrozenTrial]) -> list[Point]:
    tried = {point_key(trial.params) for trial in past}
    return [point for point in plan if point_key(point) not in tried]


def _study_in_memory(search: SearchSpec, past: Sequence[FrozenTrial], number: int) -> optuna.Study:
    """Return a study with what the algorithm may read for trial ``number``."""
    algorithm = ALGORITHMS[search.algorithm]
    seed = derive_seed(search.seed, "search/sampler", number) % 2**32
    study = optuna.create_study(
        directions=search.directions,
        sampler=algorithm.build_sampler(search, seed),
        pruner=optuna.pruners.NopPruner(),
    )
    if algorithm.reads_past:
        study.add_trials(
            _visible_to_sampler(trial, search.lag is None or trial.number <= number - search.lag) for trial in past
        )
    return study


def _visible_to_sampler(trial: FrozenTrial, with_outcome: bool) -> FrozenTrial:
    """Return only what samplers read of a trial: parameters, values, and the last epoch if it was pruned."""
    state = trial.state if with_outcome and trial.state.is_finished() else TrialState.RUNNING
    last = trial.last_step if state == TrialState.PRUNED else None
    return create_trial(
        state=state,
        values=trial.values if state == TrialState.COMPLETE else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={} if last is None else {last: trial.intermediate_values[last]},
    )
