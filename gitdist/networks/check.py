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
from gitdist.networks.lora import add_lora
from gitdist.plugins import describe_raised


def check_network(
    network: str,
    image_shape: ImageShape,
    num_classes: int,
    options: Mapping[str, Any],
    pretrained: Path | None,
    batch_size: int,
    *,
    lora: bool = False,
) -> None:
    """Make a network and run a training step's forward pass on ``batch_size`` images; ``lora`` adapts it afterwards.

    Code of other packages than gitdist, timm and torchvision runs in a child process, since it may exit, block or
    crash.

    Raises:
        SpecError: the network or the weights do not fit.
    """
    arguments = (network, image_shape, num_classes, options, pretrained, batch_size, lora)
    if network in NETWORKS or network.partition(":")[0] in LIBRARIES:
        _check_here(*arguments)
        return
    try:
        with ChildProcess(__name__) as child:
            child.call(f"trial.network '{network}' must make a network", _check_here, *arguments)
    except (ChildEndedError, OSError) as error:
        raise SpecError(f"trial.network '{network}' must make a network, but {error}; fix it") from error


def _check_here(
    network: str,
    image_shape: ImageShape,
    num_classes: int,
    options: Mapping[str, Any],
    pretrained: Path | None,
    batch_size: int,
    lora: bool,
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
    if not isinstance(logits, Tensor):
        found = type(logits).__name__
    elif logits.shape != (batch_size, num_classes):
        found = f"the shape {list(logits.shape)}"
    else:
        found = "" if any(torch.equal(logits, output) for output in returned) else "other values"
    if found:
        raise SpecError(
            f"trial.network '{network}' must return the {num_classes} outputs of its last linear layer, {name}, but it "
            f"returned {found}; change trial.network_options or the network"
        )
    if lora:
        add_lora(model, network, 1, 1.0, torch.Generator())
