"""Whose work the rows of a trial are: its own, or that of the trial that trained the prefix they share."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gitdist.disk import read_object
from gitdist.study.files.events import Row
from gitdist.study.files.layout import StudyPaths, TrialId


def trainer_name(paths: StudyPaths, trial: TrialId) -> str:
    """Return what the rows call a trial: ``quickstart-5f0c9a31/3``, ``quickstart-5f0c9a31/baseline``.

    The digits are the beginning of the study's identity: a store knows trials of several results directories.
    """
    identity = ""
    with suppress(FileNotFoundError):
        identity = f"-{paths.identity.read_text(errors='replace')[:8]}"
    return f"{paths.name}{identity}/{trial}"


def own_rows(rows: Sequence[Row], trainer: str) -> list[Row]:
    """Return the rows of epochs that the trial called ``trainer`` trained itself."""
    return [row for row in rows if row.get("trained_by", trainer) == trainer]


def seconds_of(rows: Sequence[Row]) -> float:
    """Return the time that the epochs of some rows took, training and evaluation."""
    return float(sum(row["train_s"] + row["evaluating_s"] for row in rows))


@dataclass(frozen=True)
class ReusedPrefix:
    """The prefix that a trial began with: its name in the store, and its length."""

    key: str
    epochs: int

    @classmethod
    def read(cls, directory: Path) -> "ReusedPrefix | None":
        """Return what the trial in ``directory`` took; None where it has trained all of its epochs itself so far."""
        found = read_object(directory / "trial.json") or {}
        key, epochs = found.get("prefix"), found.get("prefix_epochs")
        return cls(key, epochs) if key and epochs else None


@dataclass(frozen=True)
class Shared:
    """What a trial took from others: so many epochs, whose they were, and the seconds that they had taken there."""

    epochs: int
    trained_by: str
    saved_s: float

    @classmethod
    def of_trial(cls, paths: StudyPaths, trial: TrialId, rows: Sequence[Row]) -> "Shared | None":
        """Return what a trial with these rows took, as its files tell."""
        return cls.of(rows, trainer_name(paths, trial), ReusedPrefix.read(paths.trial(trial)))

    @classmethod
    def of(cls, rows: Sequence[Row], trainer: str, prefix: ReusedPrefix | None) -> "Shared | None":
        """Return what the trial called ``trainer`` took of its prefix; None where it trained that itself, or has none.

        The other epochs of a failed trial, from which one that repeats it goes on, are not among it.
        """
        epochs = prefix.epochs if prefix else 0
        taken = [row for row in rows if row["epoch"] <= epochs and row.get("trained_by", trainer) != trainer]
        if not taken:
            return None
        return cls(len(taken), ", ".join(dict.fromkeys(row["trained_by"] for row in taken)), seconds_of(taken))
