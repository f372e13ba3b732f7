"""The generator and stream parts of a study file."""

from typing import Annotated, Literal

from pydantic import Field

from gitdist.compute import Precision
from gitdist.spec.base import Positive, Spec


class MunitSpec(Spec):
    """MUNIT with both domains the same data set (Huang et al. 2018).

    The defaults are those of GIT (Zhou et al. 2022) but for ``auto_encoders``, of which GIT has two.
    """

    kind: Literal["munit"] = "munit"
    auto_encoders: Literal["one", "two"] = "one"  # one for both domains, or one each as published
    dim: Positive = 64
    mlp_dim: Positive = 256
    style_dim: Positive = 8
    num_downsample: int = Field(2, ge=0)
    num_res: Positive = 4
    discriminator_dim: Positive = 64
    discriminator_layers: Positive = 4
    steps: Positive = 10_000
    batch_size: Positive = 1
    lr: float = Field(1e-4, gt=0)
    lr_halved_every: Positive = 100_000  # steps
    weight_decay: float = Field(1e-4, ge=0)
    gan_weight: float = Field(1.0, ge=0)
    image_weight: float = Field(10.0, ge=0)
    style_weight: float = Field(1.0, ge=0)
    content_weight: float = Field(1.0, ge=0)
    flip: bool = True
    randaugment_ops: int = Field(0, ge=0)  # operations on each training image; 0 = no RandAugment
    randaugment_magnitude: int = Field(9, ge=0, le=30)
    mixup_alpha: float = Field(0.0, ge=0)  # of the Beta(alpha, alpha) that blends each training image with another
    checkpoint_every: Positive = 500  # steps
    precision: Precision = "auto"
    seed: int = 0


class OracleSpec(Spec):
    """The true nuisance in the generator's place."""

    kind: Literal["oracle"] = "oracle"


class IdentitySpec(Spec):
    """No transformation: the control that shows what repeating images alone does."""

    kind: Literal["identity"] = "identity"


GeneratorSpec = Annotated[MunitSpec | OracleSpec | IdentitySpec, Field(discriminator="kind")]


class StreamSpec(Spec):
    """The stream of augmentations that all trials read."""

    servers: Positive = 1
    block_size: Positive = 64  # draws of one class in a block: generated, stored and sent as one
    lookahead: Positive = 2  # blocks a trial asks for ahead of its cursor, per class
    window_mb: Positive | None = None  # blocks kept in memory for the trials to come; None = as many as is safe
    keep: bool = False  # also on disk, in the store, for later runs and other studies
    per_seed: bool = False  # trials of different trial.seed read different streams
    precision: Precision = "auto"
    compile: bool = False  # torch.compile of the generator
    seed: int = 0
