"""Attributes each epoch row to the trial that trained it: the trial itself, or one that shares its prefix."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gitdist.study.files.json_files import Description, read_json
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.trial.epoch_row import EpochRow

_IDENTITY = re.compile(r"[0-9a-z]+")


def read_identity(paths: StudyPaths) -> str | None:
    """Return the study's unique ID that its directory has; None if it has none, or the file is damaged."""
    if not paths.identity.exists():
        return None
    identity = paths.identity.read_text(errors="replace").strip()
    return identity if _IDENTITY.fullmatch(identity) else None


def trainer_name(paths: StudyPaths, trial: TrialId) -> str:
    """Return the name of a trial in rows: ``quickstart-5f0c9a31/3``, ``quickstart-5f0c9a31/baseline``.

    The digits begin the study's identity, since several results directories with one study name may share a store.
    """
    identity = read_identity(paths)
    return f"{paths.name}-{identity[:8]}/{trial}" if identity else f"{paths.name}/{trial}"


def own_rows(rows: Sequence[EpochRow], trainer: str) -> list[EpochRow]:
    """Return the rows of the epochs that the trial named ``trainer`` trained itself."""
    return [row for row in rows if (row.trained_by or trainer) == trainer]


def epoch_seconds(rows: Sequence[EpochRow]) -> float:
    """Return the seconds of training and evaluation of the rows' epochs."""
    return float(sum(row.train_s + row.evaluating_s for row in rows))


@dataclass(frozen=True)
class ReusedPrefix:
    """The shared prefix that a trial started from: its key in the store, and its number of epochs."""

    key: str
    epochs: int

    @classmethod
    def read(cls, directory: Path) -> "ReusedPrefix | None":
        """Return the prefix of the trial in ``directory``; None if it has trained all of its epochs itself so far."""
        description = read_json(directory / "trial.json", Description) or {}
        key, epochs = description.get("prefix"), description.get("prefix_epochs")
        return cls(key, epochs) if key and epochs else None


@dataclass(frozen=True)
class SharedEpochs:
    """The epochs that a trial reused: how many, who trained them, and the seconds that training them took."""

    epochs: int
    trained_by: str
    saved_s: float

    @classmethod
    def of_trial(cls, paths: StudyPaths, trial: TrialId, rows: Sequence[EpochRow]) -> "SharedEpochs | None":
        """Return the epochs that a trial with these rows reused, according to its files."""
        return cls.of(rows, trainer_name(paths, trial), ReusedPrefix.read(paths.trial(trial)))

    @classmethod
    def of(cls, rows: Sequence[EpochRow], trainer: str, prefix: ReusedPrefix | None) -> "SharedEpochs | None":
        """Return the epochs of its prefix that the trial named ``trainer`` reused, or None.

        Epochs of a failed trial that a retry continues from do not count.
        """
        epochs = prefix.epochs if prefix else 0
        reused = [row for row in rows if row.epoch <= epochs and (row.trained_by or trainer) != trainer]
        if not reused:
            return None
        return cls(len(reused), ", ".join(dict.fromkeys(str(row.trained_by) for row in reused)), epoch_seconds(reused))
