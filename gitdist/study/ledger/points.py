"""The points of a search: each is one trial, or with ``search.replicates`` several, which differ in their seed.

A point's objectives and violations of constraints are the means of its trials. It has ended when all of them have; it
has failed if one of them has, and was not retried with success.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.spec import SearchSpec
from gitdist.spec.search import SEED
from gitdist.study.ledger.records import CONSTRAINT, RETRY_OF, TrialRecord, read_record
from gitdist.study.ledger.space import distribution

POINT = "gitdist.point"  # user attribute of a replicate: number of the first trial of its point

Group = Sequence[FrozenTrial]
"""The trials of a point, by number."""


def group_trials(trials: Sequence[FrozenTrial], seeds: Sequence[int]) -> list[Group]:
    """Return the trials of each point, with the retries of its trials; without ``seeds`` each trial by itself."""
    if not seeds:
        return [[trial] for trial in trials]
    groups: dict[int, list[FrozenTrial]] = {}
    first_of: dict[int, int] = {}
    for trial in trials:
        first = trial.user_attrs.get(POINT, first_of.get(trial.user_attrs.get(RETRY_OF, -1), trial.number))
        first_of[trial.number] = first
        groups.setdefault(first, []).append(trial)
    return list(groups.values())


def find_distribution(search: SearchSpec, seeds: Sequence[int], name: str) -> BaseDistribution:
    """Return the Optuna distribution of a parameter: a searched field, or the seed of replicates."""
    return CategoricalDistribution(seeds) if seeds and name == SEED else distribution(search.space[name])


def missing_seeds(group: Group, seeds: Sequence[int]) -> list[int]:
    """Return the seeds with which a point has no trial yet; its first trial gets the first one when it starts."""
    if group[0].state == TrialState.WAITING:
        return list(seeds[1:])
    return [seed for seed in seeds if seed not in _by_seed(group)] if SEED in group[0].params else []


def merge_trials(group: Group, seeds: Sequence[int]) -> FrozenTrial:
    """Return a point as one trial, without the seed, as a sampler reads it."""
    first = group[0]
    if not seeds or first.state == TrialState.WAITING or SEED not in first.params:
        return first  # without a seed, it never started
    last = _by_seed(group)
    ended = len(last) == len(seeds) and all(trial.state.is_finished() for trial in last.values())
    complete = ended and all(trial.state == TrialState.COMPLETE for trial in last.values())
    merged = create_trial(
        state=TrialState.COMPLETE if complete else TrialState.FAIL if ended else TrialState.RUNNING,
        values=[fmean(values) for values in zip(*(trial.values for trial in last.values()), strict=True)]
        if complete
        else None,
        params={name: value for name, value in first.params.items() if name != SEED},
        distributions={name: each for name, each in first.distributions.items() if name != SEED},
        user_attrs=first.user_attrs,
        system_attrs={name: value for name, value in first.system_attrs.items() if not name.startswith(CONSTRAINT)},
        constraints={name: fmean(trial.constraints[name] for trial in last.values()) for name in first.constraints}
        if complete
        else None,
    )
    merged.number = first.number
    return merged


def point_record(group: Group, seeds: Sequence[int], switch_epoch: int) -> TrialRecord:
    """Return a point as the record of its first trial, or of its retry, with the means as objectives."""
    if not seeds:
        return read_record(group[0], switch_epoch)
    merged, first = read_record(merge_trials(group, seeds), switch_epoch), read_record(group[0], switch_epoch)
    numbers = tuple(trial.number for trial in _by_seed(group).values()) or (first.number,)
    reason = _reason(group, switch_epoch)
    return replace(merged, number=numbers[0], params=first.params, reason=reason, replicates=numbers)


def _by_seed(group: Group) -> Mapping[int, FrozenTrial]:
    """Return the last trial with each seed: of a failed one that was retried, the retry."""
    return {trial.params[SEED]: trial for trial in group if SEED in trial.params}


def _reason(group: Group, switch_epoch: int) -> str | None:
    return next((reason for trial in group if (reason := read_record(trial, switch_epoch).reason)), None)
