"""The trial and evaluation parts of a study file: one classifier training and how it is measured."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from gitdist.balancing import read_fields
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
    NameIn,
    Options,
    Precision,
    Seed,
    Spec,
    Text,
    name_or,
    unknown_name,
)

_Draws = Annotated[int, Field(ge=1, le=100_000)]
_Epochs = Annotated[int, Field(ge=1, le=MANY_EPOCHS)]
ThresholdKind = Literal["hard", "soft"]
ClassWeights = Literal["none", "inverse", "effective-number"]
OptimizerName = Literal["sgd", "adamw"]
ScheduleName = Literal["step", "cosine"]
Adaptation = Literal["full", "head", "lora"]


def _known_network(name: str, info: ValidationInfo) -> str:
    if info.context == STORED or name in NETWORKS or ":" in name or is_installed(name):
        return name
    known = [*NETWORKS, *(f"{library}:NAME" for library in LIBRARIES), "package.module:attribute"]
    raise ValueError(unknown_name("network", name, known))


class NormalizationSpec(Spec):
    """What is subtracted from pixels of 0..1 and what they are divided by: one number, or one per channel."""

    mean: Annotated[tuple[Fraction, ...], List, Field(min_length=1, max_length=1000)]
    """What is subtracted: one number, or one per channel."""
    std: Annotated[tuple[Annotated[float, Field(ge=1e-6, le=1)], ...], List, Field(min_length=1, max_length=1000)]
    """What is divided by: one number, or one per channel."""


class TrialSpec(Spec):
    """One classifier training. Before ``switch_epoch``: instance sampling, no augmentation, no deferred weights."""

    network: Annotated[Text, AfterValidator(_known_network), name_or(NETWORKS)] = "resnet20"
    """A built-in network, timm:NAME, torchvision:NAME, your own as package.module:attribute, or an entry point of the
    group gitdist.networks."""
    network_options: Options = {}
    """Keyword arguments of what makes a network that is not built in."""
    pretrained: bool | Text = False
    """Weights of all layers but the last: a file, or true for those that timm or torchvision publishes."""
    normalize: Literal["data", "imagenet"] | NormalizationSpec | None = None
    """Mean and standard deviation by which pixels of 0..1 are normalised; null: the data's own, but of a pretrained
    network of timm or torchvision its library's."""
    loss: Annotated[str, NameIn(LOSSES)] = "cross-entropy"
    """Loss of the training; balanced-softmax and logit-adjustment use the class shares of the epoch as priors."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the label that all classes share; not defined for focal."""
    class_weights: ClassWeights = "none"
    """Weights of the loss by class size."""
    weights_deferred: bool = True
    """Class weights start after switch_epoch (DRW); false: in the first epoch."""
    sampler: Annotated[str, NameIn(SAMPLERS)] = "class-balanced"
    """How an epoch samples classes after switch_epoch; progressively-balanced goes from instance to class-balanced."""
    threshold: Annotated[float, Field(gt=0, le=MANY)] | None = None
    """K: classes with fewer training images are augmented; null: all classes."""
    threshold_kind: ThresholdKind = "hard"
    """hard: classes below K are augmented and others are not; soft: a class of n images with the probability
    (K - n) / (K - n_min), at least 0, with n_min the size of the smallest class."""
    fraction: Fraction = 0.5
    """p: share of each batch that draws of the generator may replace."""
    epochs: _Epochs = 50
    """Epochs of the training."""
    switch_epoch: int = Field(0, ge=0, le=MANY_EPOCHS)
    """First epochs with instance sampling and without augmentation (deferred resampling), shared by trials; 0: none."""
    batch_size: int = Field(128, ge=1, le=1_048_576)
    """Images of a batch."""
    accumulate: int = Field(1, ge=1, le=1_048_576)
    """Batches per update of the weights."""
    optimizer: OptimizerName = "sgd"
    """Optimizer; adamw needs a smaller lr, about 0.001."""
    lr: float = Field(0.1, gt=0, le=LARGEST_FLOAT32)
    """Learning rate after the warm-up."""
    head_lr: float = Field(1.0, gt=0, le=10_000)
    """Factor of lr for the last layer."""
    schedule: ScheduleName = "step"
    """How lr falls by epoch: step: at lr_milestones; cosine: to 0 after the last epoch."""
    lr_warmup_epochs: int = Field(5, ge=0, le=MANY_EPOCHS)
    """First epochs, in which lr rises linearly."""
    lr_milestones: Annotated[tuple[_Epochs, ...], List] = ()
    """Epochs after which lr is multiplied by lr_decay, in rising order; default: 60 % and 80 % of epochs."""
    lr_decay: float = Field(0.01, gt=0, le=1)
    """Factor of lr at a milestone."""
    momentum: Fraction = 0.9
    """Momentum of sgd."""
    weight_decay: float = Field(2e-4, ge=0, le=100)
    """Weight decay."""
    decay_norms: bool = True
    """Weight decay of norms and biases too."""
    clip_norm: float = Field(0.0, ge=0, le=MANY)
    """Largest norm of an update's gradient; 0: not clipped."""
    adapt: Adaptation = "full"
    """What is trained: full: all weights; head: the last layer; lora: the last layer and a low-rank part of each
    linear layer, merged into the weights at the end."""
    lora_rank: int = Field(8, ge=1, le=8192)
    """lora: rank of the trained part."""
    lora_alpha: float = Field(16.0, gt=0, le=10_000)
    """lora: the trained part is scaled by alpha / rank."""
    freeze_backbone_epochs: int = Field(0, ge=0, le=MANY_EPOCHS)
    """First epochs that train the last layer alone."""
    ldam_margin: float = Field(0.5, gt=0, le=1000)
    """ldam: margin of the smallest class."""
    ldam_scale: float = Field(30.0, gt=0, le=10_000)
    """ldam: scale of the logits."""
    focal_gamma: float = Field(1.0, ge=0, le=100)
    """focal: exponent of 1 - P(y|x); 0 is cross-entropy."""
    logit_tau: float = Field(1.0, ge=0, le=100)
    """logit-adjustment: factor of the log priors; 0 is cross-entropy."""
    effective_beta: float = Field(0.9999, gt=0, lt=1)
    """beta of effective-number, the sampler's and the class weights'."""
    true_nuisance: bool = False
    """Every training image of every epoch is the untransformed one under a fresh draw of data.nuisance; with sampler
    instance and fraction 0 this is the paper's oracle."""
    crop_padding: int = Field(0, ge=0, le=1024)
    """Pixels by which images are padded before a random crop of their size; 0: no crop."""
    flip: bool = False
    """Mirror training images at random."""
    random_resized_crop: Fraction = 0.0
    """Smallest share of the area in a random crop, resized to the size of the image (for photos); 0: no such crop."""
    color_jitter: Fraction = 0.0
    """Largest random change of brightness, contrast and saturation; 0: none."""
    randaugment_ops: int = Field(0, ge=0, le=100)
    """RandAugment operations on each training image; 0: none."""
    randaugment_magnitude: int = Field(9, ge=0, le=30)
    """Strength of RandAugment's operations."""
    mixup_alpha: float = Field(0.0, ge=0, le=1000)
    """mixup: images of a batch are blended by a share from Beta(alpha, alpha), one draw per batch; 0: no mixup."""
    cutmix_alpha: float = Field(0.0, ge=0, le=1000)
    """cutmix, as mixup_alpha; with both, each batch gets one of them. 0: no cutmix."""
    ema_decay: float = Field(0.0, ge=0, lt=1)
    """Decay per step of the moving average of the weights, which is then evaluated; 0: no average."""
    precision: Precision = "auto"
    """Arithmetic of the training; auto: bf16 where the device has units for it, else float32."""
    compile: bool = False
    """Compile the network with torch.compile."""
    seed: Seed = 0
    """Seed of the training; default: the study's seed."""

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
        if self.label_smoothing and "label_smoothing" not in read_fields(LOSSES[self.loss]):
            raise ValueError(
                f"label_smoothing is not defined for the loss {self.loss}, but it is {self.label_smoothing:g}; "
                "set it to 0, or choose another loss"
            )
        return self


def default_milestones(epochs: int) -> tuple[int, int]:
    """Return the epochs after which the learning rate falls unless a study names others."""
    return round(0.6 * epochs), round(0.8 * epochs)


class EvaluationSpec(Spec):
    """Images and transformations per image of eKLD: after an epoch (validation) and at the end (test)."""

    epoch_images_per_class: _Draws = 10
    """Validation images per class for eKLD after an epoch."""
    epoch_transformations: _Draws = 10
    """Transformations of each of these images."""
    final_images_per_class: _Draws = 40
    """Test images per class for eKLD at the end."""
    final_transformations: _Draws = 100
    """Transformations of each of these images."""
    every: _Epochs = 1
    """Epochs between two evaluations; the last epoch is always evaluated."""
    test: Literal["chosen", "all"] = "chosen"
    """Trials that are measured on test at the end: the best ones and the baseline, or all that finished."""
    seed: Seed = 0
    """Seed of eKLD's images and transformations; default: the study's seed."""
