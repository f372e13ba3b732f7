"""How a per-class measure depends on class size, over the replicates of a setting."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gitdist.report.grouping import Line, Replicate
from gitdist.report.records import Split
from gitdist.report.statistics import Interval, interval, rank_correlation


@dataclass(frozen=True, eq=False)
class SizeCurve:
    """A measure by class size: the distinct ``sizes`` that occur, falling, and the mean over replicates at each."""

    sizes: Sequence[int]
    values: Sequence[Interval]


def size_curve(line: Line, measure: str, split: Split) -> SizeCurve | None:
    """Return a per-class measure by class size, over the replicates; None where it was not measured.

    Versions of a data set give the same sizes to other classes, so a replicate's value at a size is the mean over its
    classes of that size, and the mean and interval are over replicates.
    """
    measured = _measured(line, measure, split)
    if not measured:
        return None
    sizes = sorted(set(measured[0].classes.sizes.tolist()), reverse=True)
    table = np.array([[_at(each, measure, split, size) for size in sizes] for each in measured])
    filled = [place for place in range(len(sizes)) if not np.isnan(table[:, place]).any()]
    return SizeCurve([sizes[place] for place in filled], [interval(table[:, place]) for place in filled])


def size_correlation(line: Line, measure: str, split: Split) -> Interval | None:
    """Return the rank correlation of a per-class measure with class size, over the replicates where there is one."""
    found = [
        rank_correlation(each.classes.sizes.astype(np.float64), each.trial.measures[split].per_class[measure])
        for each in _measured(line, measure, split)
    ]
    defined = [value for value in found if not np.isnan(value)]
    return interval(defined, limits=(-1.0, 1.0)) if defined else None


def _measured(line: Line, measure: str, split: Split) -> list[Replicate]:
    return [each for each in line.replicates if measure in each.trial.measures[split].per_class]


def _at(replicate: Replicate, measure: str, split: Split, size: int) -> float:
    values = replicate.trial.measures[split].per_class[measure][replicate.classes.sizes == size]
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
