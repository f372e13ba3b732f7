"""One epoch of a trial: what training yields, and what its rows file, its checkpoint and MLflow hold."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Self

_NAMES = {"loss": "train/loss", "accuracy": "train/accuracy"}  # in JSON, of attributes with another name
_VALIDATION = "val/"
_NUMBER = (int, float)
_TYPES: Mapping[str, tuple[type, ...]] = {  # of the fields that are not just numbers
    "epoch": (int,),
    "draws": (int,),
    "ended_at": (*_NUMBER, type(None)),
    "trained_by": (str, type(None)),
}


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
        metrics: what ``Evaluation.metrics`` returns (``val/...``); empty if the epoch was not evaluated.
        per_class: what ``Evaluation.per_class`` returns; empty if the epoch was not evaluated.
        evaluating_s: seconds of evaluation.
        ended_at: unix time in seconds; None in studies of gitdist 0.1.
        trained_by: the trial that trained this epoch, see ``trainer_name``; None if it is not known.
    """

    epoch: int
    lr: float
    loss: float
    accuracy: float
    draws: int
    generated: int = 0
    train_s: float
    waiting_s: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    per_class: Mapping[str, list[float | None]] = field(default_factory=dict)
    evaluating_s: float
    ended_at: float | None = None
    trained_by: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values by name; metrics and lists per class have names with ``val/``."""
        row: dict[str, Any] = {}
        for name, value in vars(self).items():
            if name == "metrics":
                row |= value
            elif name == "per_class":
                row |= {f"{_VALIDATION}{metric}": values for metric, values in value.items()}
            elif value is not None:
                row[_NAMES.get(name, name)] = value
        return row

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the row that ``to_json`` made.

        Raises:
            KeyError: the named field is missing or of the wrong type.
        """
        found: dict[str, Any] = {"metrics": {}, "per_class": {}}
        for name, value in values.items():
            if not name.startswith(_VALIDATION) or value is None:
                continue
            if _is_a(value, _NUMBER):
                found["metrics"][name] = value
            elif isinstance(value, list) and all(each is None or _is_a(each, _NUMBER) for each in value):
                found["per_class"][name.removeprefix(_VALIDATION)] = value
            else:
                raise KeyError(name)
        for each in fields(cls):
            name = _NAMES.get(each.name, each.name)
            if each.name in found:
                continue
            if name in values:
                found[each.name] = values[name]
            if name in values or each.default is each.default_factory is MISSING:
                if not _is_a(values.get(name), _TYPES.get(name, _NUMBER)):
                    raise KeyError(name)
        return cls(**found)


def _is_a(value: object, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)  # for Python, True is a number
