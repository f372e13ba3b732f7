"""The residual networks of He et al. 2016 (arXiv 1512.03385): the CIFAR variant (section 4.2), and larger ones (4.1).

The CIFAR variant has three stages of 16, 32 and 64 channels, batch norm, and shortcuts without parameters (every second
pixel, new channels zero). The larger ones are torchvision's, with its names. Up to 64 pixels their stem is a 3x3
convolution of stride 1 without max-pooling; above, it is theirs.
"""

import re
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

LARGEST_SMALL_SIDE = 64  # pixels
_WIDTHS = (16, 32, 64)
# Before version 0.6 the layers of ResNet-18 were numbered, and its last one was named head.
_FORMER_LAYERS = {"0": "conv1", "1": "bn1", **{str(stage + 3): f"layer{stage}" for stage in (1, 2, 3, 4)}}
_FORMER_NAME = re.compile(r"layers\.([014567])\.|head\.")


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


class CifarResnet(nn.Module):
    """A residual network of 6 * ``blocks_per_stage`` + 2 layers."""

    def __init__(self, blocks_per_stage: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, _WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(_WIDTHS[0])
        widths = [_WIDTHS[0], *(width for width in _WIDTHS for _ in range(blocks_per_stage))]
        blocks = (BasicBlock(before, after, 2 if after > before else 1) for before, after in pairwise(widths))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(_WIDTHS[-1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[N, num_classes]`` of normalised images ``[N, C, H, W]``."""
        features = self.blocks(functional.relu(self.norm(self.conv(images)), inplace=True))
        return cast(Tensor, self.head(_mean_over_pixels(features)))


def build_cifar_resnet(blocks_per_stage: int, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return the CIFAR variant for images ``(C, H, W)``."""
    return CifarResnet(blocks_per_stage, image_shape[0], num_classes)


class _FlatMean(nn.Module):
    """The mean over pixels in float32, ``[N, C]``, in place of torchvision's pooling, which rounds under autocast."""

    def forward(self, features: Tensor) -> Tensor:
        return _mean_over_pixels(features)


def build_large_resnet(name: str, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return torchvision's ``resnet18``, ``resnet34`` or ``resnet50`` for images ``(C, H, W)``."""
    from gitdist.torchvision_cpu import torchvision  # slow to import, and needed by few

    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    channels, *sides = image_shape
    if max(sides) > LARGEST_SMALL_SIDE:
        network.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    else:
        network.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        network.maxpool = nn.Identity()
    network.avgpool = _FlatMean()
    network.register_load_state_dict_pre_hook(_rename_former)  # type: ignore[no-untyped-call]
    return network


def _mean_over_pixels(features: Tensor) -> Tensor:
    return features.mean((2, 3), dtype=torch.float32)


def _rename_former(module: nn.Module, state: dict[str, Any], *_: Any) -> None:
    """Rename the weights in a checkpoint of a version before 0.6 in place."""
    for name in [name for name in state if _FORMER_NAME.match(name)]:
        layer = _FORMER_NAME.match(name)
        assert layer is not None
        current = "fc" if layer[1] is None else _FORMER_LAYERS[layer[1]]
        state[f"{current}.{name[layer.end() :]}"] = state.pop(name)
