"""The last layer of every classifier: ``LinearHead`` or ``CosineHead``, exactly one per network.

Both compute in float32, also under bf16 autocast: bf16 logits would carry rounding of up to 0.03, the size of an eKLD
worth measuring.
"""

from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional


class LinearHead(nn.Linear):
    """A linear last layer; its weights have the names of ``nn.Linear``."""

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``[N, num_classes]``, float32."""
        return _float32_linear(features, self.weight, self.bias)


class CosineHead(nn.Module):
    """LDAM's normalised last layer (Cao et al. 2019): ``scale`` times the cosine of features and class direction.

    The scale is here and not in the loss, so that the logits of every classifier are the log-odds of its P(y|x).
    """

    def __init__(self, in_features: int, num_classes: int, scale: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``[N, num_classes]`` between ``-scale`` and ``scale``, float32."""
        normalised = functional.normalize(features.float())
        return self.scale * _float32_linear(normalised, functional.normalize(self.weight), None)


def head_name(model: nn.Module) -> str:
    """Return the name of a classifier's last layer, such as ``fc``: the prefix of its weights in the state dict.

    Raises:
        ValueError: the network has no such layer, or several.
    """
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, LinearHead | CosineHead)]
    if len(names) != 1:
        raise ValueError(f"a classifier must have one LinearHead or CosineHead, but it has {names or 'none'}")
    return names[0]


def replace_last_layer(model: nn.Module, num_classes: int, cosine_scale: float | None) -> None:
    """Replace the last linear layer with ``num_classes`` outputs by a ``LinearHead`` that has its weights.

    With ``cosine_scale`` the new layer is a ``CosineHead`` with uninitialised weights. The new layer can be
    trained, also if the former one was frozen.

    Raises:
        ValueError: the network has no such layer.
    """
    linear = {name: module for name, module in model.named_modules() if _is_linear(module, num_classes) and name}
    if not linear:
        raise ValueError(f"it has no linear layer with {num_classes} outputs")
    name, former = linear.popitem()
    head: nn.Module
    if cosine_scale is None:
        head = LinearHead(former.in_features, num_classes, device="meta")
        head.weight, head.bias = former.weight, former.bias
    else:
        head = CosineHead(former.in_features, num_classes, cosine_scale)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, head.requires_grad_())


def _is_linear(module: nn.Module, num_classes: int) -> TypeGuard[nn.Linear]:
    return isinstance(module, nn.Linear) and module.out_features == num_classes


def _float32_linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    kind = features.device.type
    if not torch.is_autocast_enabled(kind):  # an exported network has no trace of autocast
        return functional.linear(features.float(), weight, bias)
    with torch.autocast(kind, enabled=False):
        return functional.linear(features.float(), weight, bias)
