"""The residual networks of He et al. 2016 (arXiv 1512.03385): the CIFAR variant (section 4.2), and ResNet-18 (4.1).

The CIFAR variant has three stages of 16, 32 and 64 channels, batch norm, and shortcuts without parameters (every second
pixel, new channels zero): for images of up to 64 pixels. ResNet-18 is torchvision's: for images above 64 pixels.
"""

from itertools import pairwise
from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from gitdist.networks.classifier import Classifier

_WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and the input added before the last ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, features: Tensor) -> Tensor:
        """Return features ``[N, out_channels, ceil(H / stride), ceil(W / stride)]``."""
        inner = functional.relu(self.norm1(self.conv1(features)), inplace=True)
        outer = self.norm2(self.conv2(inner))
        outer += self._shortcut(features)
        return functional.relu(outer, inplace=True)

    def _shortcut(self, features: Tensor) -> Tensor:
        if self.stride == 1 and not self.new_channels:
            return features
        before = self.new_channels // 2
        thinned = features[:, :, :: self.stride, :: self.stride]
        return functional.pad(thinned, (0, 0, 0, 0, before, self.new_channels - before))


class CifarResnet(Classifier):
    """A residual network of 6 * ``blocks_per_stage`` + 2 layers, without its head."""

    num_features = _WIDTHS[-1]

    def __init__(self, blocks_per_stage: int, in_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, _WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(_WIDTHS[0])
        widths = [_WIDTHS[0], *(width for width in _WIDTHS for _ in range(blocks_per_stage))]
        blocks = (BasicBlock(before, after, 2 if after > before else 1) for before, after in pairwise(widths))
        self.blocks = nn.Sequential(*blocks)

    def feature_maps(self, images: Tensor) -> Tensor:
        """Return the features of the last block."""
        return cast(Tensor, self.blocks(functional.relu(self.norm(self.conv(images)), inplace=True)))


class Resnet18(Classifier):
    """ResNet-18 without its head; the features have a 32nd of the image's sides."""

    num_features = 512

    def __init__(self, in_channels: int) -> None:
        from gitdist.torchvision_cpu import torchvision  # slow to import, and needed by few

        super().__init__()
        network = torchvision.models.resnet18()
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.layers = nn.Sequential(*list(network.children())[:-2])  # without its average over pixels and its head

    def feature_maps(self, images: Tensor) -> Tensor:
        """Return the features of the last stage."""
        return cast(Tensor, self.layers(images))
