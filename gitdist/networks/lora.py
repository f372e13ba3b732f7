"""Low-rank adaptation of linear layers (LoRA: Hu et al. 2021, arXiv 2106.09685), as a parametrization of torch.

    weight [out, in] = original + alpha / rank * up [out, rank] @ down [rank, in]

``up`` begins with zeros, so an adapted classifier begins as the classifier it was. Who reads a layer's ``weight`` (its
own forward pass, or attention that computes with it) gets the sum.
"""

import math
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization, type_before_parametrizations

from gitdist.errors import SpecError
from gitdist.networks.heads import head_name


class LowRankUpdate(nn.Module):
    """Adds ``alpha / rank * up @ down`` to the weight of a linear layer."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float, rng: torch.Generator) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, layer.in_features))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))
        self.scale = alpha / rank
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5), generator=rng)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted weight ``[out, in]``, float32 also under autocast: the bits that merging gives."""
        with torch.autocast(weight.device.type, enabled=False):
            return torch.addmm(weight, self.up, self.down, alpha=self.scale)


def add_lora(model: nn.Module, network: str, rank: int, alpha: float, rng: torch.Generator) -> None:
    """Adapt every linear layer of a classifier but its head.

    Args:
        model: the classifier.
        network: its name in a study file.
        rank: of the low-rank part.
        alpha: the low-rank part counts ``alpha / rank``.
        rng: source of the initial values of ``down``.

    Raises:
        SpecError: there is no such layer.
    """
    head = model.get_submodule(head_name(model))
    modules = (module for module in model.modules() if module is not head and not is_parametrized(module))
    layers = [module for module in modules if isinstance(module, nn.Linear)]
    if not layers:
        raise SpecError(
            "trial.adapt lora needs a network with linear layers besides its last one, such as a transformer, but "
            f"'{network}' has none; set trial.adapt to full or head, or choose another network"
        )
    for layer in layers:
        register_parametrization(layer, "weight", LowRankUpdate(layer, rank, alpha, rng))


def lora_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that ``add_lora`` has added."""
    updates = [module for module in model.modules() if isinstance(module, LowRankUpdate)]
    return [parameter for update in updates for parameter in update.parameters()]


def merge_lora(model: nn.Module) -> nn.Module:
    """Make the adapted weights of ``model`` plain ones under their own names again, and return ``model``."""
    for layer in [module for module in model.modules() if isinstance(module, nn.Linear) and is_parametrized(module)]:
        if any(isinstance(module, LowRankUpdate) for module in layer.modules()):
            # Not remove_parametrizations: it also takes the weight from copies of the layer, which share its class.
            weight, bias = layer.weight.detach(), layer.bias
            layer.__class__ = type_before_parametrizations(layer)
            del layer.parametrizations, layer.bias
            layer.weight = nn.Parameter(weight)
            layer.register_parameter("bias", bias)
    return model


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of ``model`` with merged weights, under the names of the network's library."""
    return dict(merge_lora(deepcopy(model)).state_dict())
