"""The trial and evaluation parts of a study file: one classifier training and how it is measured."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from gitdist.balancing.losses import LOSSES
from gitdist.balancing.samplers import SAMPLERS
from gitdist.networks import NETWORKS
from gitdist.networks.libraries import LIBRARIES
from gitdist.networks.plugin import is_installed
from gitdist.spec.base import (
    LARGEST_FLOAT32,
    MANY,
    MANY_EPOCHS,
    STORED,
    Fraction,
    List,
    Options,
    Precision,
    Seed,
    Spec,
    Text,
    name_in,
    unknown_name,
)

_Draws = Annotated[int, Field(ge=1, le=100_000)]
_Epochs = Annotated[int, Field(ge=1, le=MANY_EPOCHS)]
ThresholdKind = Literal["hard", "soft"]
ClassWeights = Literal["none", "inverse", "effective-number"]


def _known_network(name: str, info: ValidationInfo) -> str:
    if info.context == STORED or name in NETWORKS or ":" in name or is_installed(name):
        return name
    known = [*NETWORKS, *(f"{library}:NAME" for library in LIBRARIES), "package.module:attribute"]
    raise ValueError(unknown_name("network", name, known))


class NormalizationSpec(Spec):
    """What is subtracted from pixels of 0..1 and what they are divided by: one number, or one per channel."""

    mean: Annotated[tuple[Fraction, ...], List, Field(min_length=1, max_length=1000)]
    std: Annotated[tuple[Annotated[float, Field(ge=1e-6, le=1)], ...], List, Field(min_length=1, max_length=1000)]


class TrialSpec(Spec):
    """One classifier training. Before ``switch_epoch``: instance sampling, no augmentation, no deferred weights."""

    # built-in, timm:NAME, torchvision:NAME, package.module:attribute or an entry point (gitdist.networks.plugin)
    network: Annotated[Text, AfterValidator(_known_network)] = "resnet20"
    network_options: Options = {}  # keyword arguments of what makes a network that is not built in
    # weights of all layers but the last: a file, or true for those that timm or torchvision publishes
    pretrained: bool | Text = False
    # default: imagenet or what timm states for a pretrained network of torchvision or timm, else the data's own
    normalize: Literal["data", "imagenet"] | NormalizationSpec | None = None
    loss: Annotated[str, name_in(LOSSES)] = "cross-entropy"
    class_weights: ClassWeights = "none"  # of the loss
    weights_deferred: bool = True  # class_weights begin after switch_epoch (DRW); false: in the first epoch
    # progressively-balanced goes from instance to class-balanced over the epochs after switch_epoch
    sampler: Annotated[str, name_in(SAMPLERS)] = "class-balanced"
    threshold: Annotated[float, Field(gt=0, le=MANY)] | None = None  # K; None = all classes
    threshold_kind: ThresholdKind = "hard"
    fraction: Fraction = 0.5  # p
    epochs: _Epochs = 50
    # epochs before the sampler and the augmentation start (deferred)
    switch_epoch: int = Field(0, ge=0, le=MANY_EPOCHS)
    batch_size: int = Field(128, ge=1, le=1_048_576)
    lr: float = Field(0.1, gt=0, le=LARGEST_FLOAT32)
    lr_warmup_epochs: int = Field(5, ge=0, le=MANY_EPOCHS)
    # epochs after which lr is multiplied by lr_decay, in rising order; default: 60 % and 80 % of epochs
    lr_milestones: Annotated[tuple[_Epochs, ...], List] = ()
    lr_decay: float = Field(0.01, gt=0, le=1)
    momentum: Fraction = 0.9
    weight_decay: float = Field(2e-4, ge=0, le=100)
    ldam_margin: float = Field(0.5, gt=0, le=1000)  # the smallest class's margin
    ldam_scale: float = Field(30.0, gt=0, le=10_000)
    focal_gamma: float = Field(1.0, ge=0, le=100)  # focal: exponent of 1 - P(y|x); 0 = cross-entropy
    logit_tau: float = Field(1.0, ge=0, le=100)  # logit-adjustment: factor of the log priors; 0 = cross-entropy
    effective_beta: float = Field(0.9999, gt=0, lt=1)  # of effective-number, the sampler's and the weights'
    # The paper's oracle, with sampler instance and fraction 0: every training sample of every epoch is its
    # untransformed image under a fresh draw of data.nuisance, before and after switch_epoch.
    true_nuisance: bool = False
    crop_padding: int = Field(0, ge=0, le=1024)  # pixels
    flip: bool = False
    randaugment_ops: int = Field(0, ge=0, le=100)  # operations on each image; 0 = no RandAugment
    randaugment_magnitude: int = Field(9, ge=0, le=30)
    mixup_alpha: float = Field(0.0, ge=0, le=1000)  # of mixup's Beta(alpha, alpha), one draw per batch; 0 = no mixup
    ema_decay: float = Field(0.0, ge=0, lt=1)  # per step, of the EMA of weights that is evaluated; 0 = no EMA
    precision: Precision = "auto"
    compile: bool = False  # torch.compile of the network
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _derive_milestones(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("lr_milestones") is None:
            epochs = values.get("epochs", cls.model_fields["epochs"].default)
            if isinstance(epochs, int | float) and 1 <= epochs <= MANY_EPOCHS:
                return {**values, "lr_milestones": default_milestones(int(epochs))}
        return values

    @model_validator(mode="after")
    def _library_has_weights(self) -> "TrialSpec":
        if self.pretrained is True and self.network.partition(":")[0] not in LIBRARIES:
            libraries = " or ".join(f"{library}:NAME" for library in LIBRARIES)
            raise ValueError(
                f"pretrained true needs a network {libraries}, but network is '{self.network}'; set it to a file"
            )
        return self

    @model_validator(mode="after")
    def _within_epochs(self) -> "TrialSpec":
        late = [epoch for epoch in (*self.lr_milestones, self.switch_epoch) if epoch > self.epochs]
        if late:
            name = "switch_epoch" if self.switch_epoch in late else "lr_milestones"
            raise ValueError(f"{name} must not lie beyond epochs, but {late[-1]} > {self.epochs}")
        if self.class_weights != "none" and self.weights_deferred and self.switch_epoch == self.epochs:
            raise ValueError(
                f"deferred class_weights act after switch_epoch, but switch_epoch = {self.switch_epoch} is the last "
                "epoch; lower it, or set weights_deferred to false or class_weights to none"
            )
        return self


def default_milestones(epochs: int) -> tuple[int, int]:
    """Return the epochs after which the learning rate falls unless a study names others."""
    return round(0.6 * epochs), round(0.8 * epochs)


class EvaluationSpec(Spec):
    """Images and transformations per image of eKLD: after an epoch (validation) and at the end (test)."""

    epoch_images_per_class: _Draws = 10
    epoch_transformations: _Draws = 10
    final_images_per_class: _Draws = 40
    final_transformations: _Draws = 100
    every: _Epochs = 1  # epochs; the last one is always evaluated
    test: Literal["chosen", "all"] = "chosen"  # trials measured on test at the end: the best ones, or all that finished
    seed: Seed = 0
