"""The networks a classifier can have: built-in ones, those of timm and torchvision, and those of other packages.

A new built-in network is a function that makes it, with a linear last layer, and its line in ``NETWORKS``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitdist.errors import GitdistError, SpecError, first_line
from gitdist.networks.libraries import Normalisation, find_library
from gitdist.networks.plugin import build_plugin, plugin_version
from gitdist.plugins import describe_raised

if TYPE_CHECKING:  # slow to import, and a study file needs only the names
    import torch
    from torch import Tensor, nn

ImageShape = tuple[int, int, int]
"""``(C, H, W)``"""


@dataclass(frozen=True, kw_only=True)
class Network:
    """How a network is made from image shape and number of classes, and whether it is designed for large images."""

    build: Callable[[ImageShape, int], nn.Module]
    large_images: bool


def _small_resnet(blocks_per_stage: int, image_shape: ImageShape, num_classes: int) -> nn.Module:
    from gitdist.networks.resnets import build_cifar_resnet

    return build_cifar_resnet(blocks_per_stage, image_shape, num_classes)


def _large_resnet(name: str, image_shape: ImageShape, num_classes: int) -> nn.Module:
    from gitdist.networks.resnets import build_large_resnet

    return build_large_resnet(name, image_shape, num_classes)


NETWORKS = {
    "resnet20": Network(build=partial(_small_resnet, 3), large_images=False),
    "resnet32": Network(build=partial(_small_resnet, 5), large_images=False),
    **{
        name: Network(build=partial(_large_resnet, name), large_images=True)
        for name in ("resnet18", "resnet34", "resnet50")
    },
}


def build_classifier(
    network: str,
    image_shape: ImageShape,
    num_classes: int,
    *,
    options: Mapping[str, Any] | None = None,
    cosine_scale: float | None = None,
    pretrained: Path | None = None,
    rng: torch.Generator | None = None,
) -> nn.Module:
    """Return a classifier before its training, on the CPU.

    It maps normalised float32 images ``[N, C, H, W]`` to float32 logits ``[N, num_classes]``. Its weights have the
    names of the library that made it; its last layer is one of ``gitdist.networks.heads``. Initial weights of built-in
    networks and cosine heads are Kaiming normal, fan in (He et al. 2015); others are initialised by their library.

    Args:
        network: a name in ``NETWORKS``, ``timm:NAME``, ``torchvision:NAME``, or what ``networks.plugin`` describes.
        image_shape: of the images, ``(C, H, W)``.
        num_classes: number of classes.
        options: keyword arguments of the library's or the other package's function that makes the network.
        cosine_scale: largest logit of a normalised last layer; None = a linear one.
        pretrained: a file of weights for all layers but the last; None = initial weights.
        rng: source of the initial weights; None = seed 0. The global random state is neither read nor moved.

    Raises:
        SpecError: there is no such network, it cannot be made for these images, or the file does not fit it.
    """
    import torch

    from gitdist.networks.heads import head_name, replace_last_layer
    from gitdist.networks.pretrained import load_backbone

    rng = rng or torch.Generator().manual_seed(0)
    built_in = NETWORKS.get(network)
    with torch.random.fork_rng(devices=[]):
        if built_in is not None:
            model = built_in.build(image_shape, num_classes)
        else:
            torch.default_generator.manual_seed(int(torch.randint(2**63 - 1, (), generator=rng)))
            model = _build_external(network, image_shape, num_classes, options or {})
        try:
            replace_last_layer(model, num_classes, cosine_scale)
        except ValueError as error:
            raise SpecError(
                f"trial.network '{network}' must end with a linear layer, but {error}; choose another network"
            ) from None
    if built_in is not None:
        _initialise(model, rng)
    elif cosine_scale is not None:
        _initialise(model.get_submodule(head_name(model)), rng)
    if pretrained is not None:
        found = find_library(network)
        load_backbone(model, pretrained, network, found[0].convert if found else lambda weights, model: weights)
    return model


def fitting_networks(image_shape: ImageShape) -> list[str]:
    """Return the built-in networks that are designed for images of this size, the usual one first; all of them run."""
    from gitdist.networks.resnets import LARGEST_SMALL_SIDE

    large_images = max(image_shape[1:]) > LARGEST_SMALL_SIDE
    return [name for name, network in NETWORKS.items() if network.large_images == large_images]


def network_version(network: str) -> str | int | None:
    """Return the version of the package that makes a network, or that it states; None if built-in or not stated."""
    if network in NETWORKS:
        return None
    found = find_library(network)
    return found[0].version if found else plugin_version(network)


def published_normalisation(network: str) -> Normalisation | None:
    """Return the normalisation that a library's network was trained with; None for another network."""
    found = None if network in NETWORKS else find_library(network)
    return found[0].normalisation(found[1]) if found else None


def download_weights(network: str) -> Mapping[str, Tensor]:
    """Return the weights that a library publishes for its network, by name, from the library's cache or its hub.

    Raises:
        SpecError: there are none, or the hub cannot be reached.
    """
    found = find_library(network)
    assert found is not None, "the spec refuses the weights of other networks"
    try:
        return found[0].download(found[1])
    except Exception as error:  # those of three libraries and of the network
        raise SpecError(
            f"trial.pretrained true needs the published weights of '{network}', but they cannot be downloaded "
            f"({type(error).__name__}: {first_line(error)}); download them elsewhere and set trial.pretrained to the "
            "file"
        ) from error


def _build_external(network: str, image_shape: ImageShape, num_classes: int, options: Mapping[str, Any]) -> nn.Module:
    found = find_library(network)
    if found is None:
        return build_plugin(network, image_shape, num_classes, options)
    library, name = found
    try:
        return library.build(name, image_shape, num_classes, options)
    except GitdistError:
        raise
    except Exception as error:
        shape = "x".join(map(str, image_shape))
        raise SpecError(
            f"trial.network '{network}' must be made for images of {shape} and {num_classes} classes, but it raised "
            f"{describe_raised(error)}; change trial.network_options, the network or the size of the images"
        ) from error


def _initialise(model: nn.Module, rng: torch.Generator) -> None:
    from torch import nn

    from gitdist.networks.heads import CosineHead

    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | CosineHead):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=rng)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
