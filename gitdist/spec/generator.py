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

    image_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    """Longer side of the generator's images in pixels, below the data set's: much faster at 224 pixels; its draws are
    enlarged to the data set's size. null: the data set's size."""


class MunitSpec(ResizableSpec):
    """MUNIT with both domains the same data set (Huang et al. 2018).

    The defaults are those of GIT (Zhou et al. 2022) except ``auto_encoders``: the published method trains two, one per
    domain, and draws with the first. ``one`` serves both domains at half the cost; its draws keep their class more
    often.
    """

    kind: Literal["munit"] = "munit"
    """An image-to-image generator, trained on the study's images without labels."""
    auto_encoders: Literal["one", "two"] = "one"
    """one for both domains: half the cost; two, one per domain: the published method."""
    dim: _Channels = 64
    """Channels of the auto-encoder's first layer."""
    mlp_dim: _Channels = 256
    """Width of the network that makes normalisation parameters of a style code."""
    style_dim: _Channels = 8
    """Numbers in a style code."""
    num_downsample: int = Field(2, ge=0, le=10)
    """Halvings of the image's sides on the way to the content code."""
    num_res: int = Field(4, ge=1, le=100)
    """Residual blocks of the content encoder, and of the decoder."""
    discriminator_dim: _Channels = 64
    """Channels of the discriminator's first layer."""
    discriminator_layers: int = Field(4, ge=1, le=10)
    """Layers of the discriminator, each of which halves the image's sides."""
    steps: Positive = 10_000
    """Training steps."""
    batch_size: _Images = 1
    """Images of a training step, per domain."""
    lr: float = Field(1e-4, gt=0, le=LARGEST_FLOAT32)
    """Learning rate of Adam."""
    lr_halved_every: Positive = 100_000
    """Steps after which the learning rate is halved."""
    weight_decay: float = Field(1e-4, ge=0, le=100)
    """Weight decay of Adam."""
    gan_weight: _Weight = 1.0
    """Weight of the adversarial loss."""
    image_weight: _Weight = 10.0
    """Weight of the reconstruction of images."""
    style_weight: _Weight = 1.0
    """Weight of the reconstruction of style codes."""
    content_weight: _Weight = 1.0
    """Weight of the reconstruction of content codes."""
    flip: bool = True
    """Mirror training images at random."""
    randaugment_ops: int = Field(0, ge=0, le=100)
    """RandAugment operations on each training image; 0: none."""
    randaugment_magnitude: int = Field(9, ge=0, le=30)
    """Strength of RandAugment's operations."""
    mixup_alpha: float = Field(0.0, ge=0, le=1000)
    """Each training image is blended with another by a share from Beta(alpha, alpha); 0: not blended."""
    checkpoint_every: Positive = 500
    """Steps between two checkpoints."""
    precision: Precision = "auto"
    """Arithmetic of the training; auto: bf16 where the device has units for it, else float32."""
    seed: Seed = 0
    """Seed of the training. The study's seed does not set it."""


class OracleSpec(KindSpec):
    """The true nuisance instead of a generator."""

    kind: Literal["oracle"] = "oracle"
    """Draws of data.nuisance: a control."""


class IdentitySpec(KindSpec):
    """No transformation: the control that shows what repeating images alone does."""

    kind: Literal["identity"] = "identity"
    """The images themselves: a control."""


class RandAugmentSpec(KindSpec):
    """RandAugment instead of a generator (Cubuk et al. 2020): invariances that are not learnt."""

    kind: Literal["randaugment"] = "randaugment"
    """RandAugment in the generator's place."""
    ops: int = Field(2, ge=1, le=100)
    """Operations on each image."""
    magnitude: int = Field(9, ge=0, le=30)
    """Strength of the operations."""


class PretrainedSpec(ResizableSpec):
    """A MUNIT trained elsewhere, in a file that ``gitdist generator import`` wrote."""

    from_outside: ClassVar[bool] = True
    kind: Literal["pretrained"] = "pretrained"
    """A generator that was trained elsewhere."""
    path: Text  # artifacts depend on the file's content, not its path
    """File that `gitdist generator import` wrote."""


class PluginSpec(ResizableSpec):
    """A generator of another package, see ``gitdist.generator.plugin``."""

    from_outside: ClassVar[bool] = True
    kind: Literal["plugin"] = "plugin"
    """A generator of another package."""
    target: Text
    """package.module:attribute, or an entry point of the group gitdist.generators."""
    options: Options = {}
    """Keyword arguments of the target."""

    @property
    def described(self) -> str:
        """How messages name the generator."""
        return f"generator.target '{self.target}'"


GeneratorSpec = Annotated[
    MunitSpec | OracleSpec | IdentitySpec | RandAugmentSpec | PretrainedSpec | PluginSpec, Field(discriminator="kind")
]


class StreamSpec(Spec):
    """The stream of augmentations that all trials read."""

    block_size: _Images | Literal["auto"] = 64
    """Draws of one class in a block, which is generated, stored and sent as one; auto: 64, or fewer if a trial's blocks
    of all classes would take more than 1 GiB with a lookahead of 2."""
    lookahead: int = Field(2, ge=1, le=1000)
    """Blocks per class that a trial requests ahead."""
    window_mb: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Memory in MB for blocks that later trials may read; null: as much as is safe."""
    keep: bool = False
    """Keep the blocks on disk too, for later runs and other studies."""
    per_seed: bool = False
    """Trials of different trial.seed read different draws."""
    precision: Precision = "auto"
    """Arithmetic of the generator's draws; auto: bf16 where the device has units for it, else float32."""
    compile: bool = False
    """Compile the generator with torch.compile."""
    seed: Seed = 0
    """Seed of the draws; default: the study's seed."""
