"""The gap between the best trial and the baseline in each objective, with standard errors.

A standard error is that of the choice of evaluation images (see ``trial.metrics``). It contains no variance of the
seeds of training and generator, and no correction for the best trial being the best of several on validation.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gitdist.spec.objective import VALIDATION_METRICS, Direction, standard_error_name

SPLITS: Mapping[Literal["validation", "test"], str] = {"validation": "val", "test": "test"}
"""The splits by the prefix of their metrics."""

_DECIMALS = 4


@dataclass(frozen=True)
class Estimate:
    """A metric with its standard error; None if unknown, as in studies of version 0.5.0 and before."""

    value: float
    standard_error: float | None

    def format(self, sign: str = "") -> str:
        """Return ``0.9500 ± 0.0210``; with ``sign="+"`` a positive value has a plus sign."""
        error = "" if self.standard_error is None else f" ± {self.standard_error:.{_DECIMALS}f}"
        value = round(self.value, _DECIMALS) + 0.0  # without the sign of -0.0
        return f"{value:{sign}.{_DECIMALS}f}{error}"


@dataclass(frozen=True, kw_only=True)
class Gap:
    """The best trial and the baseline in one objective on one split.

    ``difference`` is best - baseline. Its standard error is ``sqrt(best^2 + baseline^2)``, as if the two were measured
    on different images. This is conservative: they are measured on the same images and tend to err on the same ones.
    ``baseline`` and ``difference`` are None if there is no baseline.
    """

    metric: str
    direction: Direction
    split: Literal["validation", "test"]
    best: Estimate
    baseline: Estimate | None
    difference: Estimate | None

    @property
    def hint(self) -> str | None:
        """Why the gap is not a clear gain; None if it is one, or unknown."""
        if self.difference is None:
            return None
        gain = self.difference.value if self.direction == "maximize" else -self.difference.value
        if gain <= 0:
            return "no gain over the baseline"
        error = self.difference.standard_error
        return "the gap is smaller than its standard error" if error is not None and gain < error else None

    @property
    def metrics(self) -> dict[str, float]:
        """The difference, if there is one, as ``gap/val/balanced_accuracy`` and ``gap/val/balanced_accuracy_se``."""
        if self.difference is None:
            return {}
        name, error = f"gap/{SPLITS[self.split]}/{self.metric}", self.difference.standard_error
        return {name: self.difference.value, **({} if error is None else {standard_error_name(name): error})}

    def sentence(self, title: str) -> str:
        """Return the gap as one line that calls the metric ``title``."""
        parts = [f"best {self.best.format()}"]
        if self.baseline is not None and self.difference is not None:
            parts += [f"baseline {self.baseline.format()}", f"gap {self.difference.format('+')}"]
        meaning = "" if self.best.standard_error is None else " (± standard error)"
        hint = f"; {self.hint}" if self.hint else ""
        return f"{title}, {self.split}: {', '.join(parts)}{meaning}{hint}"


def find_gaps(
    objectives: Mapping[str, Direction], best: Mapping[str, float], baseline: Mapping[str, float] | None
) -> list[Gap]:
    """Return the gap in each objective on each split that the best trial was evaluated on."""
    gaps = []
    for objective, direction in objectives.items():
        metric = objective.removeprefix("val/")
        for split, prefix in SPLITS.items():
            best_estimate = estimate(best, f"{prefix}/{metric}")
            if best_estimate is not None:
                other = estimate(baseline or {}, f"{prefix}/{metric}")
                difference = None if other is None else _difference(best_estimate, other)
                gaps.append(
                    Gap(
                        metric=metric,
                        direction=direction,
                        split=split,
                        best=best_estimate,
                        baseline=other,
                        difference=difference,
                    )
                )
    return gaps


def summary_gaps(summary: Mapping[str, Any]) -> list[Gap]:
    """Return the gaps in a summary; empty without a finished trial."""
    best, baseline = summary.get("best"), summary.get("baseline")
    if not best:
        return []
    objectives = summary.get("objectives", ())
    directions = summary.get("directions") or [VALIDATION_METRICS[name] for name in objectives]  # not in 0.5
    return find_gaps(
        dict(zip(objectives, directions, strict=True)),
        {**best["val"], **best["test"]},
        {**baseline["val"], **baseline["test"]} if baseline else None,
    )


def estimate(metrics: Mapping[str, float], name: str) -> Estimate | None:
    """Return the metric ``name`` of ``metrics`` with its standard error; None if missing."""
    value = metrics.get(name)
    return None if value is None else Estimate(value, metrics.get(standard_error_name(name)))


def metric_names(metrics: Mapping[str, float]) -> list[str]:
    """Return the names of ``metrics`` without those of standard errors."""
    return [
        name for name in metrics if standard_error_name(name) in metrics or not name.endswith(standard_error_name(""))
    ]


def _difference(best: Estimate, baseline: Estimate) -> Estimate:
    errors = (best.standard_error, baseline.standard_error)
    known = [error for error in errors if error is not None]
    return Estimate(best.value - baseline.value, math.hypot(*known) if len(known) == len(errors) else None)
