"""The losses a classifier can be trained with: modules that map logits and labels to a number.

What a loss adds to the logits it adds in training alone: P(y|x) is always the softmax of the network's own logits, for
accuracy and eKLD as for every other measure.

Label smoothing (Szegedy et al. 2016, arXiv 1512.00567) is torch's: of the cross-entropy of the softmax that a loss
makes of the logits. The focal loss is no cross-entropy and has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # slow to import, and a study file needs only the names
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn


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
    from torch import nn

    return nn.CrossEntropyLoss(classes.weight, label_smoothing=label_smoothing)


def ldam(classes: ClassStatistics, *, ldam_margin: float, ldam_scale: float, label_smoothing: float) -> nn.Module:
    """Lower the true class's logit by its margin (Cao et al. 2019, arXiv 1906.07413, equation 13).

    The logits of the cosine head are scaled, so the margin is too.
    """
    from gitdist.balancing.loss_modules import MarginCrossEntropy

    margins = _tensor(ldam_scale * ldam_margins(classes.sizes, ldam_margin), classes)
    return MarginCrossEntropy(margins, classes.weight, label_smoothing)


def ldam_margins(class_sizes: NDArray[np.int64], largest: float) -> NDArray[np.float64]:
    """Return LDAM's margins ``[C]``: proportional to n_c^(-1/4), the smallest class's is ``largest`` (equation 12).

    A class without images counts as one of one image.
    """
    margins = np.maximum(class_sizes, 1).astype(np.float64) ** -0.25
    scaled: NDArray[np.float64] = largest * margins / margins.max()
    return scaled


def focal(classes: ClassStatistics, *, focal_gamma: float) -> nn.Module:
    """Weight -log p by (1 - p)^gamma, p = P(y|x) (Lin et al. 2017, arXiv 1708.02002, equation 4)."""
    from gitdist.balancing.loss_modules import Focal

    return Focal(focal_gamma, classes.weight)


def balanced_softmax(classes: ClassStatistics, *, label_smoothing: float) -> nn.Module:
    """-log(p_y e^z_y / sum_j p_j e^z_j), p the epoch's priors (Ren et al. 2020, arXiv 2007.10740).

    The paper's p_j is n_j / n, that of instance sampling; under another sampler or weights it would balance twice.
    """
    return _shifted(classes, np.log(classes.priors), label_smoothing)


def logit_adjustment(classes: ClassStatistics, *, logit_tau: float, label_smoothing: float) -> nn.Module:
    """Add tau times the epoch's log priors to the logits (Menon et al. 2021, arXiv 2007.07314, equation 10)."""
    return _shifted(classes, logit_tau * np.log(classes.priors), label_smoothing)


def _shifted(classes: ClassStatistics, shifts: NDArray[np.float64], label_smoothing: float) -> nn.Module:
    from gitdist.balancing.loss_modules import ShiftedCrossEntropy

    return ShiftedCrossEntropy(_tensor(shifts, classes), classes.weight, label_smoothing)


def _tensor(values: NDArray[np.float64], classes: ClassStatistics) -> Tensor:
    import torch

    return torch.from_numpy(values).float().to(classes.device)


LOSSES: dict[str, Callable[..., nn.Module]] = {
    "cross-entropy": cross_entropy,
    "ldam": ldam,
    "focal": focal,
    "balanced-softmax": balanced_softmax,
    "logit-adjustment": logit_adjustment,
}
