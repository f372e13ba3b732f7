"""The stop rules of a search: find the rule that ends it before its total, from its trials.

A rule that holds keeps holding while further trials end, so a resumed study stops at the same place.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal

from gitdist.spec import SearchSpec
from gitdist.study.ledger.records import TrialRecord, costs_of, dominates, list_trials


@dataclass(frozen=True)
class Stop:
    """The rule that has ended a search, by its name in ``search``, and why it holds."""

    rule: Literal["target", "patience", "max_hours"]
    reason: str


def find_stop(search: SearchSpec, records: Sequence[TrialRecord], worked_hours: float) -> Stop | None:
    """Return the first stop rule that holds; None if none does.

    Args:
        search: the search, with its rules. With ``search.lag``, the outcomes of the last lag - 1 trials are not read,
            as for a suggestion.
        records: all trials by number.
        worked_hours: for which drivers have run the study.
    """
    visible = records if search.lag is None else records[: max(0, len(records) - search.lag + 1)]
    reason = _reached(search, visible)
    if reason is not None:
        return Stop("target", reason)
    reason = _exhausted(search, visible)
    if reason is not None:
        return Stop("patience", reason)
    if search.max_hours is not None and worked_hours >= search.max_hours:
        return Stop("max_hours", f"drivers have run the study for {worked_hours:.2g} h")
    return None


def _reached(search: SearchSpec, records: Sequence[TrialRecord]) -> str | None:
    """Return which feasible trial has reached the target, if one has."""
    if search.target is None:
        return None
    direction, target = search.directions[0], search.target
    for record in records:
        value = record.value if record.feasible else None
        if value is not None and (value >= target if direction == "maximize" else value <= target):
            has = "have the mean" if record.replicates else "has"
            return f"{list_trials(record.numbers)} {has} {search.objectives[0]} {value:.4f}"
    return None


def _exhausted(search: SearchSpec, records: Sequence[TrialRecord]) -> str | None:
    """Return after which trial ``patience`` others were not better, if there is one.

    A trial is better if it is feasible and changes the Pareto front; with one objective, if it is the best so far.
    Trials are counted by number, up to the first that has not ended: the order in which they end does not matter.
    """
    if search.patience is None:
        return None
    front: list[list[float]] = []
    better, num_since = "", 0
    for record in takewhile(lambda record: record.state != "running", records):
        costs = costs_of(record, search.directions) if record.state == "finished" and record.feasible else None
        if costs is not None and not any(other == costs or dominates(other, costs) for other in front):
            front = [other for other in front if not dominates(costs, other)] + [costs]
            better, num_since = f" after {list_trials(record.numbers)}", 0
        else:
            num_since += record.state in ("finished", "pruned")
        if num_since >= search.patience:
            what = "point" if search.replicates > 1 else "trial"
            return f"{num_since} {what}{'s' if num_since > 1 else ''}{better} without a better one"
    return None
