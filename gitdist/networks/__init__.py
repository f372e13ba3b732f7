"""The networks a classifier can have: ONE table.

A new network is a subclass of ``Classifier``, made without its last layer and without initial weights, and its line in
``NETWORKS``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from gitdist.errors import SpecError
from gitdist.networks.classifier import Classifier, CosineHead
from gitdist.networks.resnets import CifarResnet, Resnet18

LARGEST_SMALL_SIDE = 64  # pixels


@dataclass(frozen=True, kw_only=True)
class Network:
    """How a network is made from the number of image channels, and whether it is for images above 64 pixels."""

    build: Callable[[int], Classifier]
    large_images: bool


NETWORKS = {
    "resnet20": Network(build=partial(CifarResnet, 3), large_images=False),
    "resnet32": Network(build=partial(CifarResnet, 5), large_images=False),
    "resnet18": Network(build=Resnet18, large_images=True),
}


def build_classifier(
    network: str,
    in_channels: int,
    num_classes: int,
    *,
    cosine_scale: float | None = None,
    rng: torch.Generator | None = None,
) -> Classifier:
    """Return a freshly initialised classifier on the CPU (Kaiming normal, fan in; He et al. 2015).

    Args:
        network: a name in ``NETWORKS``.
        in_channels: channels of the images.
        num_classes: number of classes.
        cosine_scale: largest logit of a normalised last layer; None = a linear one.
        rng: source of the initial weights; None = seed 0. The global random state is neither read nor moved.

    Raises:
        KeyError: there is no network of that name.
    """
    build = NETWORKS[network].build
    with torch.random.fork_rng(devices=[]):
        model = build(in_channels)
        if cosine_scale is None:
            model.head = nn.Linear(model.num_features, num_classes)
        else:
            model.head = CosineHead(model.num_features, num_classes, cosine_scale)
    _initialise(model, rng or torch.Generator().manual_seed(0))
    return model


def fitting_networks(image_shape: tuple[int, int, int]) -> list[str]:
    """Return the networks for images ``(C, H, W)``, the usual one first."""
    large_images = max(image_shape[1:]) > LARGEST_SMALL_SIDE
    return [name for name, network in NETWORKS.items() if network.large_images == large_images]


def check_network(network: str, image_shape: tuple[int, int, int]) -> None:
    """Refuse a network that is made for images of another size.

    Raises:
        SpecError: a network for small images has large ones or the other way round.
    """
    fitting = fitting_networks(image_shape)
    if network not in fitting:
        sizes = f"{'above' if NETWORKS[network].large_images else 'up to'} {LARGEST_SMALL_SIDE} pixels"
        raise SpecError(
            f"trial.network {network} is for images of {sizes}, but they are {image_shape[1]}x{image_shape[2]}; "
            f"set it to {' or '.join(fitting)}, or resize the images"
        )


def _initialise(model: Classifier, rng: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | CosineHead):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=rng)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
