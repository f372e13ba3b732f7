"""One epoch of a trial: what training yields, and what its rows file, its checkpoint and MLflow hold."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

_NEEDED = ("epoch", "lr", "train/loss", "train/accuracy", "draws", "train_s", "evaluating_s")
VALIDATION = "val/"


@dataclass(frozen=True, kw_only=True)
class EpochRow:
    """The record of one epoch.

    Attributes:
        epoch: counted from 1.
        lr: the learning rate.
        loss: of training, the mean over samples; with class weights the mean of the batches' weighted means.
        accuracy: of training, 0..1; with mixup of each sample's own label, not its partner's.
        draws: number of samples that were replaced by a draw of the generator.
        generated: number of images made in this very process, not by a stream that all trials read.
        train_s: seconds of training.
        waiting_s: the part of ``train_s`` that was spent waiting for the stream.
        evaluating_s: seconds of evaluation.
        metrics: what ``Evaluation.metrics`` returns (``val/...``); empty if the epoch was not evaluated.
        per_class: what ``Evaluation.per_class`` returns; empty if the epoch was not evaluated.
        ended_at: unix time in seconds; None in studies of gitdist 0.1.
        trained_by: the trial that trained this epoch, see ``trainer_name``; None if it is not known.
    """

    epoch: int
    lr: float
    loss: float
    accuracy: float
    draws: int
    train_s: float
    generated: int = 0
    waiting_s: float = 0.0
    evaluating_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    per_class: Mapping[str, list[float | None]] = field(default_factory=dict)
    ended_at: float | None = None
    trained_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        optional = {"ended_at": self.ended_at, "trained_by": self.trained_by}
        return {
            "epoch": self.epoch,
            "lr": self.lr,
            "train/loss": self.loss,
            "train/accuracy": self.accuracy,
            "draws": self.draws,
            "generated": self.generated,
            "train_s": self.train_s,
            "waiting_s": self.waiting_s,
            **self.metrics,
            **{f"{VALIDATION}{name}": values for name, values in self.per_class.items()},
            "evaluating_s": self.evaluating_s,
            **{name: value for name, value in optional.items() if value is not None},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the row that ``to_json`` made.

        Raises:
            KeyError: the named field is missing or not a number.
        """
        for name in _NEEDED:
            if not isinstance(values.get(name), int | float):
                raise KeyError(name)
        validation = {name: value for name, value in values.items() if name.startswith(VALIDATION)}
        return cls(
            epoch=values["epoch"],
            lr=values["lr"],
            loss=values["train/loss"],
            accuracy=values["train/accuracy"],
            draws=values["draws"],
            generated=values.get("generated", 0),
            train_s=values["train_s"],
            waiting_s=values.get("waiting_s", 0.0),
            evaluating_s=values["evaluating_s"],
            metrics={name: value for name, value in validation.items() if isinstance(value, int | float)},
            per_class={
                name.removeprefix(VALIDATION): value for name, value in validation.items() if isinstance(value, list)
            },
            ended_at=values.get("ended_at"),
            trained_by=values.get("trained_by"),
        )
