"""The classifier: a residual network for small images, with a plain or a normalised last layer.

ResNet-20 and ResNet-32 in the CIFAR variant of He et al. 2016 (arXiv 1512.03385, section 4.2): three stages of 16, 32
and 64 channels, batch norm, and shortcuts without parameters (every second pixel, new channels zero).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from gitdist.errors import TrialFailure, first_line

Network = Literal["resnet20", "resnet32"]
_BLOCKS_PER_STAGE = {"resnet20": 3, "resnet32": 5}
_WIDTHS = (16, 32, 64)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, and the input added before the last ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        """Make a block that divides height and width by ``stride``."""
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


class CosineHead(nn.Module):
    """A last layer on the unit sphere: ``scale`` times the cosine between features and class directions.

    LDAM's normalised last layer (Cao et al. 2019). The scale stands here and not in the loss, so that the logits of
    every classifier are the log-odds of its P(y|x).
    """

    def __init__(self, in_features: int, num_classes: int, scale: float) -> None:
        """Make one direction of ``in_features`` numbers for each class."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``[N, num_classes]`` between ``-scale`` and ``scale``."""
        return self.scale * functional.linear(functional.normalize(features), functional.normalize(self.weight))


class Classifier(nn.Module):
    """P(y|x) for small images; the logits are float32 also under bf16 autocast."""

    def __init__(self, blocks_per_stage: int, in_channels: int, head: nn.Module) -> None:
        """Make the network with uninitialised weights; ``build_classifier`` fills them from a named seed."""
        super().__init__()
        self.conv = nn.Conv2d(in_channels, _WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(_WIDTHS[0])
        blocks: list[nn.Module] = []
        channels = _WIDTHS[0]
        for stage, width in enumerate(_WIDTHS):
            for block in range(blocks_per_stage):
                blocks.append(ResidualBlock(channels, width, stride=2 if stage > 0 and block == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits.

        Args:
            images: normalised images ``[N, C, H, W]``, float32; fastest in channels_last.

        Returns:
            Logits ``[N, num_classes]``, float32.
        """
        features = functional.relu(self.norm(self.conv(images)), inplace=True)
        pooled = self.blocks(features).mean((2, 3), dtype=torch.float32)
        # bf16 logits would carry rounding of up to 0.03, the size of an eKLD worth measuring.
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.head(pooled)
        return logits


def build_classifier(
    network: Network,
    in_channels: int,
    num_classes: int,
    normalised: bool = False,
    *,
    scale: float = 30.0,
    rng: torch.Generator | None = None,
) -> Classifier:
    """Return a freshly initialised classifier on the CPU (Kaiming normal, fan in; He et al. 2015).

    Args:
        network: ``"resnet20"`` (0.27 M weights) or ``"resnet32"`` (0.46 M).
        in_channels: channels of the images.
        num_classes: number of classes.
        normalised: use the normalised last layer (for LDAM).
        scale: largest logit of the normalised last layer.
        rng: source of the initial weights; None = seed 0. The global random state is neither read nor moved.
    """
    features = _WIDTHS[-1]
    with torch.random.fork_rng(devices=[]):
        head = CosineHead(features, num_classes, scale) if normalised else nn.Linear(features, num_classes)
        model = Classifier(_BLOCKS_PER_STAGE[network], in_channels, head)
    _initialise(model, rng if rng is not None else torch.Generator().manual_seed(0))
    return model


def move(model: Classifier, device: torch.device) -> Classifier:
    """Put ``model`` on ``device`` in channels_last, the fastest layout of its convolutions, and return it."""
    moved: Classifier = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def compiled(model: Classifier, batch_size: int) -> Callable[[Tensor], Tensor]:
    """Return the forward pass of ``model`` through torch.compile, which compiles the backward pass with it.

    Weights, statistics and their names stay those of ``model``. Batches of another size than ``batch_size`` (an
    epoch's last) run uncompiled: on a processor each size costs about a minute of compilation.

    Args:
        model: on its device, in channels_last.
        batch_size: images in nearly all batches.

    Returns:
        A function of normalised images that returns logits; it raises TrialFailure where compilation fails.
    """
    from torch._dynamo.exc import TorchDynamoException  # slow to import, and needed by few

    fast = torch.compile(model, dynamic=False)

    def forward(images: Tensor) -> Tensor:
        if len(images) != batch_size:
            return model(images)  # type: ignore[no-any-return]
        try:
            return fast(images)  # type: ignore[no-any-return]
        except TorchDynamoException as error:
            reason = first_line(getattr(error, "inner_exception", error))
            raise TrialFailure(
                f"trial.compile needs a network that torch.compile can compile here, but it says: {reason}; "
                "install a C++ compiler, or set trial.compile to false"
            ) from error

    return forward


def _initialise(model: Classifier, rng: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | CosineHead):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=rng)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
