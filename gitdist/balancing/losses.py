"""The losses a classifier can be trained with: modules that map logits and labels to a number.

What a loss adds to the logits it adds in training alone: P(y|x) is always the softmax of the network's own logits, for
accuracy and eKLD as for every other measure.

Label smoothing (Szegedy et al. 2016, arXiv 1512.00567) is torch's: of the cross-entropy of the softmax that a loss
makes of the logits. The focal loss is no cross-entropy and has none.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]
"""``loss(logits [N, C], labels [N])``: the mean over the batch, weighted by class as torch's ``cross_entropy`` does."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassStatistics:
    """What a loss may know of the classes in an epoch.

    ``sizes`` int64 ``[C]`` counts the training images, ``priors`` float64 ``[C]`` has each class's share of the loss,
    ``weight`` float32 ``[C]`` what a sample of each class counts for (None = all alike), on ``device`` as the logits.
    """

    sizes: NDArray[np.int64]
    priors: NDArray[np.float64]
    weight: Tensor | None
    device: torch.device


def cross_entropy(classes: ClassStatistics, *, label_smoothing: float) -> nn.Module:
    """-log P(y|x)."""
    return nn.CrossEntropyLoss(classes.weight, label_smoothing=label_smoothing)


def ldam(classes: ClassStatistics, *, ldam_margin: float, ldam_scale: float, label_smoothing: float) -> nn.Module:
    """Lower the true class's logit by its margin (Cao et al. 2019, arXiv 1906.07413, equation 13).

    The logits of the cosine head are scaled, so the margin is too.
    """
    margins = torch.from_numpy(ldam_scale * ldam_margins(classes.sizes, ldam_margin)).float().to(classes.device)
    return _MarginCrossEntropy(margins, classes.weight, label_smoothing)


class _MarginCrossEntropy(nn.CrossEntropyLoss):
    margins: Tensor

    def __init__(self, margins: Tensor, weight: Tensor | None, label_smoothing: float) -> None:
        super().__init__(weight, label_smoothing=label_smoothing)
        self.register_buffer("margins", margins)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        true_class = functional.one_hot(labels, len(self.margins))
        return super().forward(logits - self.margins * true_class, labels)


def ldam_margins(class_sizes: NDArray[np.int64], largest: float) -> NDArray[np.float64]:
    """Return LDAM's margins ``[C]``: proportional to n_c^(-1/4), the smallest class's is ``largest`` (equation 12).

    A class without images counts as one of one image.
    """
    margins = np.maximum(class_sizes, 1).astype(np.float64) ** -0.25
    scaled: NDArray[np.float64] = largest * margins / margins.max()
    return scaled


def focal(classes: ClassStatistics, *, focal_gamma: float) -> nn.Module:
    """Weight -log p by (1 - p)^gamma, p = P(y|x) (Lin et al. 2017, arXiv 1708.02002, equation 4)."""
    return _Focal(focal_gamma, classes.weight)


class _Focal(nn.Module):
    weight: Tensor | None

    def __init__(self, gamma: float, weight: Tensor | None) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weight", weight)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        surprise = functional.cross_entropy(logits, labels, reduction="none")
        # Where p rounds to 1 the power's derivative is infinite for gamma < 1; its product with 0 must stay 0.
        doubt = (-torch.expm1(-surprise)).clamp(min=torch.finfo(surprise.dtype).tiny)
        values = doubt**self.gamma * surprise
        weight = self.weight
        return values.mean() if weight is None else (weight[labels] * values).sum() / weight[labels].sum()


def balanced_softmax(classes: ClassStatistics, *, label_smoothing: float) -> nn.Module:
    """-log(p_y e^z_y / sum_j p_j e^z_j), p the epoch's priors (Ren et al. 2020, arXiv 2007.10740).

    The paper's p_j is n_j / n, that of instance sampling; under another sampler or weights it would balance twice.
    """
    return _ShiftedCrossEntropy(classes, np.log(classes.priors), label_smoothing)


def logit_adjustment(classes: ClassStatistics, *, logit_tau: float, label_smoothing: float) -> nn.Module:
    """Add tau times the epoch's log priors to the logits (Menon et al. 2021, arXiv 2007.07314, equation 10)."""
    return _ShiftedCrossEntropy(classes, logit_tau * np.log(classes.priors), label_smoothing)


class _ShiftedCrossEntropy(nn.CrossEntropyLoss):
    shifts: Tensor

    def __init__(self, classes: ClassStatistics, shifts: NDArray[np.float64], label_smoothing: float) -> None:
        super().__init__(classes.weight, label_smoothing=label_smoothing)
        self.register_buffer("shifts", torch.from_numpy(shifts).float().to(classes.device))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().forward(logits + self.shifts, labels)


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "cross-entropy": cross_entropy,
    "ldam": ldam,
    "focal": focal,
    "balanced-softmax": balanced_softmax,
    "logit-adjustment": logit_adjustment,
}
