"""The original way of generating: plain MUNIT in float32 that encodes content and style anew for every batch.

The same architecture as ``gitdist.generator.munit`` out of torch's own layers: reflection padding and convolution as
two layers, nearest enlargement followed by an ordinary 5x5 convolution, torch's instance norm. With the same weights it
is the same function up to rounding, so that what is compared is the way of computing alone.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from gitdist.generator.munit.networks import STYLE_DOWNSAMPLINGS, AutoEncoder, load_auto_encoder
from gitdist.spec import MunitSpec

_EPS = 1e-5


def padded(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Return reflection padding and a convolution."""
    return nn.Sequential(nn.ReflectionPad2d((kernel - 1) // 2), nn.Conv2d(inputs, outputs, kernel, stride=stride))


class PlainBlock(nn.Module):
    """A residual block with instance norm, scaled and shifted where a style is given."""

    def __init__(self, channels: int) -> None:
        """Make the block for so many channels."""
        super().__init__()
        self.first, self.second = padded(channels, channels, 3), padded(channels, channels, 3)

    def forward(self, x: Tensor, style: Tensor | None = None) -> Tensor:
        """Map ``[N, C, H, W]`` to the same shape; ``style`` is ``[N, 2 layers, (shift, scale), C, 1, 1]``."""
        y = functional.relu(_adain(self.first(x), style, 0))
        return x + _adain(self.second(y), style, 1)


class PlainEnlargement(nn.Module):
    """Nearest enlargement by 2, 5x5 convolution to half the channels, layer norm over the image, ReLU."""

    def __init__(self, channels: int) -> None:
        """Make the layer from so many channels to half of them."""
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels // 2, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels // 2, 1, 1))
        self.layers = nn.Sequential(nn.Upsample(scale_factor=2), *padded(channels, channels // 2, 5))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, C / 2, 2 * H, 2 * W]``."""
        y = self.layers(x)
        flat = y.flatten(1)
        mean, deviation = flat.mean(1).view(-1, 1, 1, 1), flat.std(1).view(-1, 1, 1, 1)
        return functional.relu((y - mean) / (deviation + _EPS) * self.gain + self.bias)


class PlainMunit(nn.Module):
    """One domain's auto-encoder; its parameters stand in the order of ``AutoEncoder``'s."""

    def __init__(self, spec: MunitSpec, image_channels: int) -> None:
        """Make it with torch's own initial weights."""
        super().__init__()
        wide = spec.dim * 2**spec.num_downsample
        self._spec = spec
        self.style_encoder = _style_encoder(spec, image_channels)
        self.content_encoder = _content_encoder(spec, image_channels)
        self.blocks = nn.ModuleList(PlainBlock(wide) for _ in range(spec.num_res))
        self.enlargements = nn.Sequential(*(PlainEnlargement(wide // 2**index) for index in range(spec.num_downsample)))
        self.output = padded(spec.dim, image_channels, 7)
        self.mlp = nn.Sequential(
            nn.Linear(spec.style_dim, spec.mlp_dim),
            nn.ReLU(),
            nn.Linear(spec.mlp_dim, spec.mlp_dim),
            nn.ReLU(),
            nn.Linear(spec.mlp_dim, spec.num_res * 4 * wide),
        )

    def take_weights(self, auto_encoder: AutoEncoder) -> None:
        """Copy the weights of gitdist's own network of the same settings."""
        with torch.no_grad():
            for own, other in zip(self.parameters(), auto_encoder.parameters(), strict=True):
                own.copy_(other)

    def decode(self, content: Tensor, style: Tensor) -> Tensor:
        """Map content codes ``[N, C', H', W']`` and styles ``[N, style_dim]`` to images in -1..1 ``[N, C, H, W]``."""
        numbers = self.mlp(style).view(len(style), self._spec.num_res, 2, 2, -1, 1, 1)
        x = content
        for index, block in enumerate(self.blocks):
            x = block(x, numbers[:, index])
        return torch.tanh(self.output(self.enlargements(x)))

    @torch.no_grad()
    def transform(self, images: Tensor) -> Tensor:
        """Return a fresh draw of each image: both encoders, a random style, the decoder.

        Args:
            images: float32 ``[N, C, H, W]`` in 0..1.

        Returns:
            float32 ``[N, C, H, W]`` in 0..1.
        """
        signed = images * 2 - 1
        content, _ = self.content_encoder(signed), self.style_encoder(signed)
        style = torch.randn(len(images), self._spec.style_dim, device=images.device)
        return (self.decode(content, style) + 1) / 2


def load_plain(spec: MunitSpec, image_channels: int, artefact: Path, device: torch.device) -> PlainMunit:
    """Return the plain network with the weights of a trained generator.

    Args:
        spec: its settings.
        image_channels: 1 or 3.
        artefact: directory of the trained generator.
        device: where it will run.
    """
    network = PlainMunit(spec, image_channels)
    network.take_weights(load_auto_encoder(spec, image_channels, artefact))
    return network.to(device).eval()


def _adain(x: Tensor, style: Tensor | None, layer: int) -> Tensor:
    normal = functional.instance_norm(x, eps=_EPS)
    return normal if style is None else normal * style[:, layer, 1] + style[:, layer, 0]


def _content_encoder(spec: MunitSpec, image_channels: int) -> nn.Sequential:
    sizes = [spec.dim * 2**index for index in range(spec.num_downsample + 1)]
    layers: list[nn.Module] = [padded(image_channels, spec.dim, 7), nn.InstanceNorm2d(spec.dim), nn.ReLU()]
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [padded(before, after, 4, 2), nn.InstanceNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, *(PlainBlock(sizes[-1]) for _ in range(spec.num_res)))


def _style_encoder(spec: MunitSpec, image_channels: int) -> nn.Sequential:
    sizes = [spec.dim * 2 ** min(index, 2) for index in range(STYLE_DOWNSAMPLINGS + 1)]
    layers: list[nn.Module] = [padded(image_channels, spec.dim, 7), nn.ReLU()]
    for before, after in zip(sizes, sizes[1:], strict=False):
        layers += [padded(before, after, 4, 2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(sizes[-1], spec.style_dim, 1), nn.Flatten())
