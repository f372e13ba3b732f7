"""Whose work the rows of a trial are: its own, or that of the trial that trained the prefix they share."""

from collections.abc import Sequence
from dataclasses import dataclass

from gitdist.study.events import Row
from gitdist.study.paths import TrialId


def trainer_name(study: str, trial: TrialId) -> str:
    """Return what the rows call a trial: ``quickstart/3``, ``quickstart/baseline``."""
    return f"{study}/{trial}"


def own_rows(rows: Sequence[Row], trainer: str) -> list[Row]:
    """Return the rows of epochs that the trial called ``trainer`` trained itself."""
    return [row for row in rows if row.get("trained_by", trainer) == trainer]


def seconds_of(rows: Sequence[Row]) -> float:
    """Return the time that the epochs of some rows took, training and evaluation."""
    return float(sum(row["train_s"] + row["evaluating_s"] for row in rows))


@dataclass(frozen=True)
class Shared:
    """What a trial took from others: so many epochs, whose they were, and the seconds that they had taken there."""

    epochs: int
    trained_by: str
    saved_s: float

    @classmethod
    def of(cls, rows: Sequence[Row], trainer: str) -> "Shared | None":
        """Return what the trial called ``trainer`` took; None where it trained all of its rows itself."""
        taken = [row for row in rows if row.get("trained_by", trainer) != trainer]
        if not taken:
            return None
        return cls(len(taken), ", ".join(dict.fromkeys(row["trained_by"] for row in taken)), seconds_of(taken))
