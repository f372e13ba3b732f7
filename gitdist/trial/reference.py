"""The reference classifier, which judges draws: it knows every class as well as the source allows.

It learns from the same source, nuisance, version and held-out images as the study, without the long tail: all training
images of each class up to a thousand. So it has seen no validation image, and each class about equally often.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gitdist.data.dataset import Dataset, prepare
from gitdist.device import Compute
from gitdist.errors import StudyError, TrialFailedError
from gitdist.networks import network_version
from gitdist.spec import DataSpec, ProfileSpec, TrialSpec
from gitdist.store import Store
from gitdist.trial.checkpoint import load_checkpoint, load_classifier, save_checkpoint
from gitdist.trial.epoch_row import EpochRow
from gitdist.trial.training import TrialSetting, train

_FORMAT = 1
_PER_CLASS = 1000
_IMAGES_SEEN = 60_000  # in training, if the number of epochs is not given


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """The classifier, the data set that it learnt from and its epochs of training."""

    model: nn.Module
    dataset: Dataset
    epochs: int


def reference_classifier(
    data: DataSpec,
    network: str,
    epochs: int | None,
    store: Store,
    compute: Compute,
    on_epoch: Callable[[EpochRow, int], None] = lambda row, epochs: None,
    *,
    network_options: Mapping[str, Any] | None = None,
) -> Reference:
    """Return the reference classifier, out of the store or trained into it; it is not pretrained.

    Raises:
        StudyError: a loss or an output was not finite.
    """
    dataset = prepare(data.model_copy(update={"profile": ProfileSpec(kind="none", largest=_PER_CLASS)}), store)
    epochs = epochs or -(-_IMAGES_SEEN // len(dataset.train.labels))
    spec = TrialSpec.model_validate(
        {"network": network, "epochs": epochs, "fraction": 0.0, "batch_size": 64, "lr": 0.05, "lr_decay": 0.1}
        | {"lr_warmup_epochs": 0, "network_options": dict(network_options or {})}
    )

    def build(target: Path, scratch: Path) -> None:
        setting = TrialSetting(compute=compute, directory=scratch, evaluation_every=epochs)
        try:
            for row in train(spec, dataset, setting):
                on_epoch(row, epochs)
        except TrialFailedError as failure:
            raise StudyError(
                f"training the classifier that judges draws failed: {failure}; train it for another number of epochs"
            ) from None
        trained = load_checkpoint(scratch)
        assert trained, "the last epoch has written one"
        save_checkpoint(target, trained)

    determined_by = {
        "format": _FORMAT,
        "data": dataset.fingerprint,
        "trial": spec.model_dump(mode="json", exclude_defaults=True),
        "precision": compute.precision,
    }
    if (version := network_version(network)) is not None:
        determined_by["network_version"] = version
    found = store.get_or_build("reference", determined_by, build)
    return Reference(model=load_classifier(spec, dataset, found, compute), dataset=dataset, epochs=epochs)
