"""The trials of another study that a search starts with (``search.warm_start``), as JSON values in the ledger."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.spec import SearchSpec
from gitdist.study.ledger.space import distribution

OBSERVATIONS = "observations"  # attribute of the study in the ledger

Observation = Mapping[str, Any]
"""``params``, ``state``, ``values`` in the order of the search's objectives, ``curve`` and ``constraints``."""


def describe_disagreement(search: SearchSpec, other: SearchSpec) -> str | None:
    """Return in one line why trials of another search cannot be observations of this one; None if they can."""
    if lacking := [name for name in search.objectives if name not in other.objectives]:
        return f"its search.objective must include {lacking[0]}, but is {', '.join(other.objectives)}"
    if differing := sorted(search.space.keys() ^ other.space.keys()):
        where = "this study" if differing[0] in search.space else "that study"
        return f"both must search the same fields, but {differing[0]} is searched in {where} alone"
    if search.constraints and set(search.constraints) != set(other.constraints):
        shown = ", ".join(map(str, other.constraints)) or "none"
        return f"its search.constraints must be those of this study, but they are {shown}"
    for name, dimension in search.space.items():
        own, others = (list(each.choice or ["a range"]) for each in (dimension, other.space[name]))
        if own != others or dimension.when != other.space[name].when:
            return f"search.space.{name} must have the same choices and `when`, or be a range in both"
    return None


def observe(search: SearchSpec, other: SearchSpec, trials: Iterable[FrozenTrial]) -> list[Observation]:
    """Return the ended trials of another search whose parameters lie in this one's space.

    Failed trials are left out, and pruned ones if this search has several objectives.
    """
    chosen = [other.objectives.index(name) for name in search.objectives]
    usable = [TrialState.COMPLETE, *([TrialState.PRUNED] if chosen == [0] else [])]
    return [
        {
            "params": trial.params,
            "state": trial.state.name,
            "values": [trial.values[index] for index in chosen] if trial.values else None,
            "curve": {str(step): value for step, value in trial.intermediate_values.items()},
            "constraints": trial.constraints if search.constraints else {},
        }
        for trial in trials
        if trial.state in usable and all(search.space[name].contains(value) for name, value in trial.params.items())
    ]


def read_observations(search: SearchSpec, observations: Sequence[Observation]) -> list[FrozenTrial]:
    """Return observations as Optuna's trials, with the distributions of this search."""
    return [
        create_trial(
            state=TrialState[each["state"]],
            values=each["values"],
            params=each["params"],
            distributions={name: distribution(search.space[name]) for name in each["params"]},
            intermediate_values={int(step): value for step, value in each["curve"].items()},
            constraints=each["constraints"],
        )
        for each in observations
    ]
