"""The generator and stream parts of a study file."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gitdist.spec.base import LARGEST_FLOAT32, Options, Positive, Precision, Seed, Spec, Text

_Channels = Annotated[int, Field(ge=1, le=8192)]
_Images = Annotated[int, Field(ge=1, le=65_536)]  # at once
_Weight = Annotated[float, Field(ge=0, le=1_000_000)]


class KindSpec(Spec):
    """Base of all kinds of generators."""

    from_outside: ClassVar[bool] = False  # the study file alone does not determine its draws

    @property
    def described(self) -> str:
        """How messages name the generator."""
        return "the generator"


class ResizableSpec(KindSpec):
    """Base of the kinds that can generate at a lower resolution than the data set's."""

    # longer side of the generator's images in pixels; draws are enlarged to the data set's size. None = that size
    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None


class MunitSpec(ResizableSpec):
    """MUNIT with both domains the same data set (Huang et al. 2018).

    The defaults are those of GIT (Zhou et al. 2022) except ``auto_encoders``: the published method trains two, one per
    domain, and draws with the first. ``one`` serves both domains at half the cost; its draws keep their class more
    often.
    """

    kind: Literal["munit"] = "munit"
    auto_encoders: Literal["one", "two"] = "one"  # two, one per domain, is the published method
    dim: _Channels = 64
    mlp_dim: _Channels = 256
    style_dim: _Channels = 8
    num_downsample: int = Field(2, ge=0, le=10)
    num_res: int = Field(4, ge=1, le=100)
    discriminator_dim: _Channels = 64
    discriminator_layers: int = Field(4, ge=1, le=10)
    steps: Positive = 10_000
    batch_size: _Images = 1
    lr: float = Field(1e-4, gt=0, le=LARGEST_FLOAT32)
    lr_halved_every: Positive = 100_000  # steps
    weight_decay: float = Field(1e-4, ge=0, le=100)
    gan_weight: _Weight = 1.0
    image_weight: _Weight = 10.0
    style_weight: _Weight = 1.0
    content_weight: _Weight = 1.0
    flip: bool = True
    randaugment_ops: int = Field(0, ge=0, le=100)  # operations on each training image; 0 = no RandAugment
    randaugment_magnitude: int = Field(9, ge=0, le=30)
    # of the Beta(alpha, alpha) that blends each training image with another
    mixup_alpha: float = Field(0.0, ge=0, le=1000)
    checkpoint_every: Positive = 500  # steps
    precision: Precision = "auto"
    seed: Seed = 0


class OracleSpec(KindSpec):
    """The true nuisance instead of a generator."""

    kind: Literal["oracle"] = "oracle"


class IdentitySpec(KindSpec):
    """No transformation: the control that shows what repeating images alone does."""

    kind: Literal["identity"] = "identity"


class RandAugmentSpec(KindSpec):
    """RandAugment instead of a generator (Cubuk et al. 2020): invariances that are not learnt."""

    kind: Literal["randaugment"] = "randaugment"
    ops: int = Field(2, ge=1, le=100)  # operations on each image
    magnitude: int = Field(9, ge=0, le=30)


class PretrainedSpec(ResizableSpec):
    """A MUNIT trained elsewhere, in a file that ``gitdist generator import`` wrote."""

    from_outside: ClassVar[bool] = True
    kind: Literal["pretrained"] = "pretrained"
    path: Text  # artifacts depend on the file's content, not its path


class PluginSpec(ResizableSpec):
    """A generator of another package, see ``gitdist.generator.plugin``."""

    from_outside: ClassVar[bool] = True
    kind: Literal["plugin"] = "plugin"
    target: Text  # package.module:attribute, or an entry point of the group gitdist.generators
    options: Options = {}  # its keyword arguments

    @property
    def described(self) -> str:
        """How messages name the generator."""
        return f"generator.target '{self.target}'"


GeneratorSpec = Annotated[
    MunitSpec | OracleSpec | IdentitySpec | RandAugmentSpec | PretrainedSpec | PluginSpec, Field(discriminator="kind")
]


class StreamSpec(Spec):
    """The stream of augmentations that all trials read."""

    # draws of one class in a block: generated, stored and sent as one; auto = 64, or fewer if a trial's blocks of all
    # classes would take more than 1 GiB with a lookahead of 2
    block_size: _Images | Literal["auto"] = 64
    lookahead: int = Field(2, ge=1, le=1000)  # blocks a trial asks for ahead of its cursor, per class
    # blocks kept in memory for later trials; None = as many as is safe
    window_mb: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    keep: bool = False  # also on disk, in the store, for later runs and other studies
    per_seed: bool = False  # trials of different trial.seed read different streams
    precision: Precision = "auto"
    compile: bool = False  # torch.compile of the generator
    seed: Seed = 0
