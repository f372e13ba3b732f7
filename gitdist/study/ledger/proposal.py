"""Which point of the search space a trial tries: a pure function of the search, the trials before it and its number.

The proposal is asked of a study in memory that holds what the algorithm may know of the trials before, so nothing of a
trial enters the ledger before the whole trial does.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.seeds import derive_seed
from gitdist.spec import SearchSpec
from gitdist.spec.dimension import dependency_order
from gitdist.study.ledger.space import distribution, point_key, point_plan

RETRY_OF = "gitdist.retry_of"  # user attribute of a trial that repeats a failed one: the failed one's number
REPEAT_OF = "gitdist.repeat_of"  # of one that takes over the result of a finished one, which trained the same
REPLICATE_OF = "gitdist.replicate_of"  # of one that is trained although another one trained, or trains, the same

Point = dict[str, Any]


def propose(search: SearchSpec, past: Sequence[FrozenTrial], number: int) -> tuple[Point, dict[str, BaseDistribution]]:
    """Return the parameters of trial ``number`` and their distributions; both have only the fields searched in it.

    Args:
        search: what is searched.
        past: trials 0 to ``number`` - 1; with ``search.lag`` the outcomes of the last lag - 1 are not looked at.
        number: the trial's number, which seeds its proposal.
    """
    place = number - sum(RETRY_OF in trial.user_attrs for trial in past)
    plan = point_plan(search)
    if plan is None:
        fixed = search.try_first[place] if place < len(search.try_first) else {}
    else:
        fixed = plan[place] if search.algorithm == "grid" else _remaining(plan, past)[0]
    params: Point = {}
    distributions: dict[str, BaseDistribution] = {}
    trial = _study_of(search, past, number).ask()
    for name in dependency_order(search.space):
        if search.space[name].applies(params):
            asked = distributions[name] = distribution(search.space[name])
            if name in fixed:
                params[name] = asked.to_external_repr(asked.to_internal_repr(fixed[name]))
            else:
                params[name] = trial._suggest(name, asked)  # what Study.ask itself does where nothing is conditional
    return params, distributions


def num_proposals(search: SearchSpec, past: Sequence[FrozenTrial]) -> int:
    """Return how many trials a search proposes, those of the past among them; retries count on top.

    Args:
        search: what is searched.
        past: all trials so far.
    """
    plan = point_plan(search)
    if plan is None or search.algorithm == "grid":
        return search.total if plan is None else min(search.total, len(plan))
    proposed = sum(RETRY_OF not in trial.user_attrs for trial in past)
    return min(search.total, proposed + len(_remaining(plan, past)))


def _remaining(plan: Sequence[Point], past: Sequence[FrozenTrial]) -> list[Point]:
    tried = {point_key(trial.params) for trial in past}
    return [point for point in plan if point_key(point) not in tried]


def build_sampler(search: SearchSpec, number: int) -> optuna.samplers.BaseSampler:
    """Return the sampler that proposes trial ``number``; each number has a seed of its own."""
    seed = derive_seed(search.seed, "search/sampler", number) % 2**32
    if search.algorithm != "tpe":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        # multivariate, group and constant_liar are marked experimental; nothing else is silenced here
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=search.startup_trials,
            multivariate=True,
            group=any(dimension.when for dimension in search.space.values()),
            constant_liar=True,
        )


def _study_of(search: SearchSpec, past: Sequence[FrozenTrial], number: int) -> optuna.Study:
    """Return a study in memory with what the algorithm may know for trial ``number``."""
    study = optuna.create_study(
        directions=search.directions, sampler=build_sampler(search, number), pruner=optuna.pruners.NopPruner()
    )
    if search.algorithm == "tpe":
        study.add_trials(_known(trial, search.lag is None or trial.number <= number - search.lag) for trial in past)
    return study


def _known(trial: FrozenTrial, with_outcome: bool) -> FrozenTrial:
    """Return a trial with no more than TPE reads: parameters, values, and the last epoch of a pruned one."""
    state = trial.state if with_outcome and trial.state.is_finished() else TrialState.RUNNING
    last = trial.last_step if state == TrialState.PRUNED else None
    return create_trial(
        state=state,
        values=trial.values if state == TrialState.COMPLETE else None,
        params=trial.params,
        distributions=trial.distributions,
        intermediate_values={} if last is None else {last: trial.intermediate_values[last]},
    )
