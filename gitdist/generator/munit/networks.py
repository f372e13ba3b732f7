"""The networks of MUNIT (Huang et al. 2018, arXiv 1804.04732), written from the paper's description.

    image --content encoder--> content code [N, C', H', W'] --+
    image --style encoder----> style code [N, style_dim] --MLP--> shifts, scales --decoder--> image

Drawing needs the content encoder (once per image), the MLP and the decoder (once per draw) only. Images are in [-1, 1];
the networks compute in the type of the images. Modules are in the published order: an encoder's convolutions and then
its residual blocks, the decoder's residual blocks and then its upsamplings, for each AdaIN layer its shifts and then
its scales. Attribute names are the names of the weights in generator files.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from gitdist.errors import SpecError, StoreError
from gitdist.generator.munit.layers import Convolution, OutputConvolution, UpsamplingConvolution, normalise
from gitdist.spec import MunitSpec

STYLE_DOWNSAMPLINGS = 4
WEIGHTS_FILE = "generator.safetensors"

_LARGEST_CODE = 16  # side of the content codes of 64-pixel images with the published two downsamplings


class AdaptiveResidualBlock(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))); the gains and biases of the norms come from a style, or there are none."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(Convolution(channels, channels, 3) for _ in range(2))

    def forward(self, x: Tensor, affine: Tensor | None = None) -> Tensor:
        """Map ``[N, C, H, W]`` to the same shape; ``affine`` has shift and scale of both norms, [N, 2, 2, C, 1, 1]."""
        y = x
        for index, convolution in enumerate(self.convolutions):
            bias, gain = (None, None) if affine is None else affine[:, index].unbind(1)
            y = normalise(convolution(y), "pixels", gain, bias)
            y = F.relu(y) if index == 0 else y
        return x + y


class ContentEncoder(nn.Module):
    """7x7 convolution, stride-2 convolutions that double the channels, residual blocks; instance norm, ReLU."""

    def __init__(self, spec: MunitSpec, image_channels: int) -> None:
        super().__init__()
        sizes = [spec.dim * 2**i for i in range(spec.num_downsample + 1)]
        self.convolutions = _encoding_convolutions(image_channels, sizes)
        self.blocks = nn.ModuleList(AdaptiveResidualBlock(sizes[-1]) for _ in range(spec.num_res))

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[N, C, H, W]`` to content codes ``[N, dim * 2^d, H / 2^d, W / 2^d]``, d = num_downsample."""
        x = images
        for convolution in self.convolutions:
            x = F.relu(normalise(convolution(x), "pixels"))
        for block in self.blocks:
            x = block(x)
        return x


class StyleEncoder(nn.Module):
    """7x7 convolution, four stride-2 convolutions, average over pixels, 1x1 convolution; no norm."""

    def __init__(self, spec: MunitSpec, image_channels: int) -> None:
        super().__init__()
        sizes = [spec.dim * 2 ** min(i, 2) for i in range(STYLE_DOWNSAMPLINGS + 1)]
        self.convolutions = _encoding_convolutions(image_channels, sizes)
        self.output = Convolution(sizes[-1], spec.style_dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[N, C, H, W]`` to style codes ``[N, style_dim]``."""
        x = images
        for convolution in self.convolutions:
            x = F.relu(convolution(x))
        code: Tensor = self.output(x.mean((2, 3), keepdim=True))
        return code.flatten(1)


class StyleMlp(nn.Module):
    """The 3-layer perceptron that maps a style code to the shifts and scales of all AdaIN layers."""

    def __init__(self, spec: MunitSpec) -> None:
        super().__init__()
        self.num_res, self.channels = spec.num_res, spec.dim * 2**spec.num_downsample
        sizes = (spec.style_dim, spec.mlp_dim, spec.mlp_dim, spec.num_res * 4 * self.channels)
        # The default initialisation, which is skipped here, would change torch's global random state.
        layers = [nn.utils.skip_init(nn.Linear, *pair) for pair in pairwise(sizes)]  # type: ignore[no-untyped-call]
        self.layers = nn.ModuleList(layers)

    def forward(self, style: Tensor) -> Tensor:
        """Map styles ``[N, style_dim]`` to ``[N, num_res, 2 layers, (shift, scale), C, 1, 1]``."""
        x = style
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        affine: Tensor = self.layers[-1](x)
        return affine.view(len(x), self.num_res, 2, 2, self.channels, 1, 1)


class Upsampling(nn.Module):
    """Enlargement by 2 with a 5x5 convolution that halves the channels, layer norm over the image, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.convolution = UpsamplingConvolution(channels, channels // 2)
        self.gain = nn.Parameter(torch.ones(channels // 2, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels // 2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, C / 2, 2 * H, 2 * W]``."""
        return F.relu(normalise(self.convolution(x), "image", self.gain, self.bias))


class Decoder(nn.Module):
    """Residual blocks with AdaIN, upsamplings, 7x7 convolution, tanh."""

    def __init__(self, spec: MunitSpec, image_channels: int) -> None:
        super().__init__()
        channels = spec.dim * 2**spec.num_downsample
        self.blocks = nn.ModuleList(AdaptiveResidualBlock(channels) for _ in range(spec.num_res))
        self.upsamplings = nn.ModuleList(Upsampling(channels // 2**i) for i in range(spec.num_downsample))
        self.output = OutputConvolution(spec.dim, image_channels, side=min(4, 2**spec.num_downsample))

    def forward(self, content: Tensor, affine: Tensor) -> Tensor:
        """Map content codes ``[N, C', H', W']`` and the MLP's output to float32 images ``[N, C, H, W]``."""
        x = content
        for index, block in enumerate(self.blocks):
            x = block(x, affine[:, index])
        for upsampling in self.upsamplings:
            x = upsampling(x)
        return torch.tanh(self.output(x).float())


class AutoEncoder(nn.Module):
    """Both encoders, the style MLP and the decoder of one domain, with uninitialised weights."""

    def __init__(self, spec: MunitSpec, image_channels: int) -> None:
        super().__init__()
        self.style_encoder = StyleEncoder(spec, image_channels)
        self.content_encoder = ContentEncoder(spec, image_channels)
        self.decoder = Decoder(spec, image_channels)
        self.mlp = StyleMlp(spec)

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """Map content codes ``[N, C', H', W']`` and styles ``[N, style_dim]`` to float32 images ``[N, C, H, W]``."""
        images: Tensor = self.decoder(content, self.mlp(style).to(content.dtype))
        return images


class Discriminator(nn.Module):
    """Stride-2 convolutions with leaky ReLU 0.2, no norm, then a 1x1 convolution: one score per patch."""

    def __init__(self, spec: MunitSpec, image_channels: int) -> None:
        super().__init__()
        sizes = [image_channels, *(spec.discriminator_dim * 2**i for i in range(spec.discriminator_layers))]
        self.convolutions = nn.ModuleList(Convolution(before, after, 4, stride=2) for before, after in pairwise(sizes))
        self.output = Convolution(sizes[-1], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Map images ``[N, C, H, W]`` to scores ``[N, 1, h, w]``."""
        x = images
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), 0.2)
        scores: Tensor = self.output(x)
        return scores


def _encoding_convolutions(image_channels: int, sizes: Sequence[int]) -> nn.ModuleList:
    """Return a 7x7 convolution to ``sizes[0]`` channels, then one of stride 2 from each size to the next."""
    halving = [Convolution(before, after, 4, stride=2) for before, after in pairwise(sizes)]
    return nn.ModuleList([Convolution(image_channels, sizes[0], 7), *halving])


def initialise(network: nn.Module, std: float | None, rng: torch.Generator) -> None:
    """Draw the weights of all convolutions and linear layers and set their biases to zero."""
    for module in network.modules():
        if isinstance(module, Convolution | nn.Linear):
            with torch.no_grad():
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, std if std is not None else (2.0 / fan_in) ** 0.5, generator=rng)
                module.bias.zero_()


def load_auto_encoder(spec: MunitSpec, image_channels: int, artifact: Path) -> AutoEncoder:
    """Return the trained network in a generator's artifact, on the CPU."""
    auto_encoder = AutoEncoder(spec, image_channels)
    try:
        weights = load_file(artifact / WEIGHTS_FILE)
        if broken := first_non_finite(weights):
            raise ValueError(f"{broken} contains NaN or infinite values")
        auto_encoder.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        message = f"{artifact / WEIGHTS_FILE} does not have the weights of the generator's settings ({reason})"
        raise StoreError(f"{message}; remove the directory to train it again") from error
    return auto_encoder


def first_non_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first weight with NaN or infinite values, which would draw black images, or None."""
    return next((name for name, weight in sorted(weights.items()) if not weight.isfinite().all()), None)


def check_geometry(spec: MunitSpec, image_shape: tuple[int, int, int]) -> None:
    """Check that the strides of the settings fit images ``(C, H, W)``.

    Raises:
        SpecError: the images are too small or of a size that the decoder cannot restore.
    """
    _, height, width = image_shape
    size = f"images are {height}x{width}"
    if height % 2**spec.num_downsample or width % 2**spec.num_downsample:
        raise SpecError(
            f"generator.num_downsample = {spec.num_downsample} needs image sides that are multiples of "
            f"{2**spec.num_downsample}, but {size}; set it to {fitting_downsamplings(image_shape)} or resize the images"
        )
    for part, halvings, remedy in (
        ("generator.num_downsample", spec.num_downsample, "lower it"),
        ("generator.discriminator_layers", spec.discriminator_layers - 1, "lower it"),
        ("the style encoder of generator.kind = munit", STYLE_DOWNSAMPLINGS - 1, "enlarge the images"),
    ):
        if min(height, width) >> halvings < 2:
            raise SpecError(f"{part} needs image sides of at least {2 ** (halvings + 1)}, but {size}; {remedy}")


def fitting_downsamplings(image_shape: tuple[int, int, int]) -> int:
    """Return the ``num_downsample`` for images ``(C, H, W)``: 2 up to 64 pixels, 3 up to 128, 4 up to 256.

    It is the smallest number from 2 up with content codes of at most 16x16. If the sides cannot be halved that often,
    it is as many halvings as possible.
    """
    _, height, width = image_shape
    halvings = 0
    while not (height | width) >> halvings & 1 and (halvings < 2 or max(height, width) >> halvings > _LARGEST_CODE):
        halvings += 1
    return halvings
