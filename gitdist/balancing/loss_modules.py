"""The modules of losses that torch does not have; see ``losses``."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(logits [N, C], labels [N])``: the mean over the batch, weighted by class as torch's ``cross_entropy`` does."""


class MarginCrossEntropy(nn.CrossEntropyLoss):
    """Lowers the true class's logit by its margin, ``margins`` ``[C]``."""

    margins: Tensor

    def __init__(self, margins: Tensor, weight: Tensor | None, label_smoothing: float) -> None:
        super().__init__(weight, label_smoothing=label_smoothing)
        self.register_buffer("margins", margins)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of logits ``[N, C]`` and labels ``[N]``."""
        true_class = functional.one_hot(labels, len(self.margins))
        return super().forward(logits - self.margins * true_class, labels)


class Focal(nn.Module):
    """Weights the cross-entropy by (1 - p)^gamma."""

    weight: Tensor | None

    def __init__(self, gamma: float, weight: Tensor | None) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of logits ``[N, C]`` and labels ``[N]``."""
        surprise = functional.cross_entropy(logits, labels, reduction="none")
        # Where p rounds to 1 the power's derivative is infinite for gamma < 1; its product with 0 must stay 0.
        doubt = (-torch.expm1(-surprise)).clamp(min=torch.finfo(surprise.dtype).tiny)
        values = doubt**self.gamma * surprise
        weight = self.weight
        return values.mean() if weight is None else (weight[labels] * values).sum() / weight[labels].sum()


class ShiftedCrossEntropy(nn.CrossEntropyLoss):
    """Adds ``shifts`` ``[C]`` to the logits."""

    shifts: Tensor

    def __init__(self, shifts: Tensor, weight: Tensor | None, label_smoothing: float) -> None:
        super().__init__(weight, label_smoothing=label_smoothing)
        self.register_buffer("shifts", shifts)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of logits ``[N, C]`` and labels ``[N]``."""
        return super().forward(logits + self.shifts, labels)
