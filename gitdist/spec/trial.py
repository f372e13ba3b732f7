"""The trial and evaluation parts of a study file: one classifier training and how it is measured."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gitdist.compute import Precision
from gitdist.spec.base import Fraction, Positive, Spec


class TrialSpec(Spec):
    """One classifier training. Before ``switch_epoch``: instance sampling, no augmentation."""

    network: Literal["resnet20", "resnet32", "resnet18"] = "resnet20"  # resnet18: images above 64 pixels
    loss: Literal["cross-entropy", "ldam"] = "cross-entropy"
    sampler: Literal["instance", "class-balanced", "square-root", "effective-number"] = "class-balanced"
    threshold: Annotated[float, Field(gt=0)] | None = None  # K; None = all classes
    threshold_kind: Literal["hard", "soft"] = "hard"
    fraction: Fraction = 0.5  # p
    epochs: Positive = 50
    switch_epoch: int = Field(0, ge=0)  # epochs before the sampler and the augmentation start (deferred)
    batch_size: Positive = 128
    lr: float = Field(0.1, gt=0)
    lr_warmup_epochs: int = Field(5, ge=0)
    lr_milestones: tuple[
        int, ...
    ] = ()  # epochs after which lr is multiplied by lr_decay; default: 60% and 80% of epochs
    lr_decay: float = Field(0.01, gt=0, le=1)
    momentum: Fraction = 0.9
    weight_decay: float = Field(2e-4, ge=0)
    ldam_margin: float = Field(0.5, gt=0)  # the smallest class's margin
    ldam_scale: float = Field(30.0, gt=0)
    effective_beta: float = Field(0.9999, gt=0, lt=1)
    crop_padding: int = Field(0, ge=0)  # pixels
    flip: bool = False
    randaugment_ops: int = Field(0, ge=0)  # operations on each image; 0 = no RandAugment
    randaugment_magnitude: int = Field(9, ge=0, le=30)
    precision: Precision = "auto"
    compile: bool = False  # torch.compile of the network
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _derive_milestones(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("lr_milestones") is None:
            epochs = values.get("epochs", cls.model_fields["epochs"].default)
            if isinstance(epochs, int):
                return {**values, "lr_milestones": default_milestones(epochs)}
        return values

    @model_validator(mode="after")
    def _within_epochs(self) -> "TrialSpec":
        late = [epoch for epoch in (*self.lr_milestones, self.switch_epoch) if epoch > self.epochs]
        if late:
            name = "switch_epoch" if self.switch_epoch in late else "lr_milestones"
            raise ValueError(f"{name} must not lie beyond epochs, but {late[-1]} > {self.epochs}")
        return self


def default_milestones(epochs: int) -> tuple[int, int]:
    """Return the epochs after which the learning rate falls where a study does not say."""
    return round(0.6 * epochs), round(0.8 * epochs)


def vary(base: TrialSpec, changes: Mapping[str, Any]) -> TrialSpec:
    """Return a trial with some fields changed; milestones that follow from the number of epochs follow the new one.

    Raises:
        ValidationError: the fields break a rule.
    """
    values = base.model_dump()
    if base.lr_milestones == default_milestones(base.epochs):
        del values["lr_milestones"]
    return TrialSpec.model_validate({**values, **changes})


class EvaluationSpec(Spec):
    """Images and transformations per image of eKLD: after an epoch (validation) and at the end (test)."""

    epoch_images_per_class: Positive = 10
    epoch_transformations: Positive = 10
    final_images_per_class: Positive = 40
    final_transformations: Positive = 100
    every: Positive = 1  # epochs; the last one is always evaluated
    seed: int = 0
