"""Rows of epochs that were not trained, for tests of what is done with rows."""

from typing import Any

from gitdist.trial.epoch_row import EpochRow


def epoch_row(epoch: int = 1, **fields: Any) -> EpochRow:
    defaults = {"lr": 0.1, "loss": 0.5, "accuracy": 0.25, "draws": 0, "train_s": 0.0, "evaluating_s": 0.0}
    return EpochRow(epoch=epoch, **{**defaults, **fields})


def row_report(epoch: int, accuracy: float = 0.5) -> dict[str, list[EpochRow]]:
    """A worker's report of an epoch, with its balanced accuracy on validation."""
    return {"rows": [epoch_row(epoch, metrics={"val/balanced_accuracy": accuracy})]}
