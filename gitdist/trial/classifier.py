"""The classifier: a residual network with a plain or a normalised last layer.

For images of up to 64 pixels ResNet-20 and ResNet-32 in the CIFAR variant of He et al. 2016 (arXiv 1512.03385, section
4.2): three stages of 16, 32 and 64 channels, batch norm, and shortcuts without parameters (every second pixel, new
channels zero). For larger ones ResNet-18 (section 4.1), torchvision's.
"""

from collections.abc import Callable
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gitdist.errors import SpecError, TrialFailedError, first_line

Network = Literal["resnet20", "resnet32", "resnet18"]
LARGEST_SMALL_SIDE = 64  # pixels; the small networks end with features of a quarter of the image's sides
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
    """P(y|x): features averaged over pixels, then a last layer; the logits are float32 also under bf16 autocast."""

    head: nn.Module
    num_features: int

    def feature_maps(self, images: Tensor) -> Tensor:
        """Return the last features, ``[N, num_features, h, w]``, of normalised images ``[N, C, H, W]``."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits.

        Args:
            images: normalised images ``[N, C, H, W]``, float32; fastest in channels_last.

        Returns:
            Logits ``[N, num_classes]``, float32.
        """
        pooled = self.feature_maps(images).mean((2, 3), dtype=torch.float32)
        # bf16 logits would carry rounding of up to 0.03, the size of an eKLD worth measuring.
        with torch.autocast(images.device.type, enabled=False):
            logits: Tensor = self.head(pooled)
        return logits


class SmallResnet(Classifier):
    """ResNet-20 or ResNet-32; uninitialised: ``build_classifier`` fills the weights from a named seed."""

    num_features = _WIDTHS[-1]

    def __init__(self, blocks_per_stage: int, in_channels: int) -> None:
        """Make the network without its head."""
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

    def feature_maps(self, images: Tensor) -> Tensor:
        """Return the features of the last block."""
        return cast(Tensor, self.blocks(functional.relu(self.norm(self.conv(images)), inplace=True)))


class Resnet18(Classifier):
    """ResNet-18; uninitialised as ``SmallResnet``."""

    num_features = 512

    def __init__(self, in_channels: int) -> None:
        """Make the network without its head."""
        from gitdist.data.torchvision_cpu import torchvision  # slow to import, and needed by few

        super().__init__()
        network = torchvision.models.resnet18()
        network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        self.layers = nn.Sequential(*list(network.children())[:-2])  # without its average over pixels and its head

    def feature_maps(self, images: Tensor) -> Tensor:
        """Return the features of the last stage, of a 32nd of the image's sides."""
        return cast(Tensor, self.layers(images))


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
        network: ``"resnet20"`` (0.27 M weights), ``"resnet32"`` (0.46 M) or ``"resnet18"`` (11 M).
        in_channels: channels of the images.
        num_classes: number of classes.
        normalised: use the normalised last layer (for LDAM).
        scale: largest logit of the normalised last layer.
        rng: source of the initial weights; None = seed 0. The global random state is neither read nor moved.
    """
    with torch.random.fork_rng(devices=[]):
        small = _BLOCKS_PER_STAGE.get(network)
        model = SmallResnet(small, in_channels) if small else Resnet18(in_channels)
        features = model.num_features
        model.head = CosineHead(features, num_classes, scale) if normalised else nn.Linear(features, num_classes)
    _initialise(model, rng if rng is not None else torch.Generator().manual_seed(0))
    return model


def fitting_networks(image_shape: tuple[int, int, int]) -> tuple[Network, ...]:
    """Return the networks for images ``(C, H, W)``, the usual one first."""
    return ("resnet18",) if max(image_shape[1:]) > LARGEST_SMALL_SIDE else ("resnet20", "resnet32")


def check_network(network: str, image_shape: tuple[int, int, int]) -> None:
    """Refuse a network that is made for images of another size.

    Raises:
        SpecError: a network for small images has large ones or the other way round.
    """
    fitting = fitting_networks(image_shape)
    if network not in fitting:
        sizes = f"{'up to' if network in _BLOCKS_PER_STAGE else 'above'} {LARGEST_SMALL_SIDE} pixels"
        raise SpecError(
            f"trial.network {network} is for images of {sizes}, but they are {image_shape[1]}x{image_shape[2]}; "
            f"set it to {' or '.join(fitting)}, or resize the images"
        )


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
        A function of normalised images that returns logits; it raises TrialFailedError where compilation fails.
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
            raise TrialFailedError(
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
