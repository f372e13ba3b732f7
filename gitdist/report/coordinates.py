"""Where searched values lie within their dimensions, for figures over the search space."""

from typing import Any

import numpy as np

from gitdist.report.records import SEED, StudyRecord
from gitdist.spec import Dimension


def varied_fields(study: StudyRecord) -> list[str]:
    """Return the searched fields, without the seed, that have several values among the finished trials."""
    values = {name: {repr(trial.params.get(name)) for trial in study.finished} for name in study.spec.search.space}
    return [name for name, found in values.items() if len(found) > 1 and name != SEED]


def coordinate(dimension: Dimension, value: Any) -> float:
    """Return where a value lies between the ends of its dimension, 0..1: choices evenly, a log range by logarithm."""
    if dimension.bounds is None:
        return dimension.extremes.index(value) / max(1, len(dimension.extremes) - 1)
    low, high = dimension.bounds
    if dimension.log:
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float((value - low) / (high - low))
