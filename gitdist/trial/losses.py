"""The losses a classifier can be trained with, functions of logits and labels.

A new loss is one builder here and its name in ``_BUILDERS`` and in ``TrialSpec.loss``.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gitdist.spec import TrialSpec

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(spec: TrialSpec, class_sizes: NDArray[np.int64], device: torch.device | str = "cpu") -> Loss:
    """Return ``loss(logits [N, C], labels [N]) -> scalar``, the mean over the batch.

    Args:
        spec: names the loss and carries its parameters.
        class_sizes: training images of each class, int64 ``[C]``.
        device: where logits and labels will be.
    """
    return _BUILDERS[spec.loss](spec, class_sizes, torch.device(device))


def ldam_margins(class_sizes: NDArray[np.int64], largest: float) -> NDArray[np.float64]:
    """Return LDAM's margin of each class, ``[C]``: proportional to n_c^(-1/4), the smallest class's is ``largest``.

    Cao et al. 2019, arXiv 1906.07413, equation 12. A class without images counts as one of one image.
    """
    margins = np.maximum(class_sizes, 1).astype(np.float64) ** -0.25
    scaled: NDArray[np.float64] = largest * margins / margins.max()
    return scaled


def _cross_entropy(spec: TrialSpec, class_sizes: NDArray[np.int64], device: torch.device) -> Loss:
    return functional.cross_entropy


def _ldam(spec: TrialSpec, class_sizes: NDArray[np.int64], device: torch.device) -> Loss:
    """Lower the true class's logit by its margin (equation 13); the head's logits are scaled, so the margin is too."""
    margins = torch.from_numpy(spec.ldam_scale * ldam_margins(class_sizes, spec.ldam_margin)).float().to(device)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        true_class = functional.one_hot(labels, len(margins))
        return functional.cross_entropy(logits - margins * true_class, labels)

    return loss


_BUILDERS = {"cross-entropy": _cross_entropy, "ldam": _ldam}
