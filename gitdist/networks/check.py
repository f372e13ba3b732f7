"""Checks before a study starts that a network can be made, takes the images, and that pretrained weights fit it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gitdist.child_process import ChildEndedError, ChildProcess
from gitdist.errors import SpecError
from gitdist.networks import NETWORKS, ImageShape, build_classifier
from gitdist.networks.heads import head_name
from gitdist.networks.libraries import LIBRARIES
from gitdist.plugins import describe_raised


def check_network(
    image_shape: ImageShape,
    num_classes: int,
    network: str,
    options: Mapping[str, Any],
    pretrained: Path | None,
    batch_size: int,
) -> None:
    """Make a network and run a training step's forward pass on ``batch_size`` images.

    Code of other packages than gitdist, timm and torchvision runs in a child process, since it may exit, block or
    crash. A built-in network without pretrained weights needs no check.

    Raises:
        SpecError: the network or the weights do not fit.
    """
    arguments = (image_shape, num_classes, network, options, pretrained, batch_size)
    if network in NETWORKS and pretrained is None:
        return
    if network in NETWORKS or network.partition(":")[0] in LIBRARIES:
        _check_here(*arguments)
        return
    try:
        with ChildProcess(__name__) as child:
            child.call(f"trial.network '{network}' must make a network", _check_here, *arguments)
    except (ChildEndedError, OSError) as error:
        raise SpecError(f"trial.network '{network}' must make a network, but {error}; fix it") from error


def _check_here(
    image_shape: ImageShape,
    num_classes: int,
    network: str,
    options: Mapping[str, Any],
    pretrained: Path | None,
    batch_size: int,
) -> None:
    model = build_classifier(network, image_shape, num_classes, options=options, pretrained=pretrained).train()
    name, returned = head_name(model), list[Tensor]()
    model.get_submodule(name).register_forward_hook(lambda module, inputs, output: returned.append(output))
    shape = "x".join(map(str, (batch_size, *image_shape)))
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(0)
            logits = model(torch.zeros(batch_size, *image_shape))
    except Exception as error:
        raise SpecError(
            f"trial.network '{network}' must train on batches of {shape}, but it raised {describe_raised(error)}; "
            "change trial.network_options, trial.batch_size, the network or the size of the images"
        ) from error
    is_tensor = isinstance(logits, Tensor) and logits.shape == (batch_size, num_classes)
    if not is_tensor or not any(torch.equal(logits, output) for output in returned):
        found = f"{list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise SpecError(
            f"trial.network '{network}' must return the {num_classes} outputs of its last linear layer, {name}, but it "
            f"returned {found}; change trial.network_options or the network"
        )
