"""The losses a classifier can be trained with, functions of logits and labels.

What a loss adds to the logits it adds in training alone: P(y|x) is always the softmax of the network's own logits, for
accuracy and eKLD as for every other measure.

A new loss is one builder here and its name in ``_BUILDERS`` and in ``TrialSpec.loss``.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gitdist.spec import TrialSpec
from gitdist.trial.weights import class_priors, class_weights

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int, device: torch.device | str = "cpu") -> Loss:
    """Return an epoch's ``loss(logits [N, C], labels [N]) -> scalar``, the mean over the batch.

    With class weights w the mean is sum_i w_{y_i} l_i / sum_i w_{y_i}, as that of torch's ``cross_entropy``.

    Args:
        spec: names the loss and carries its parameters; sampler, class weights and the switch say what the epoch does.
        class_sizes: training images of each class, int64 ``[C]``.
        epoch: counted from 1.
        device: where logits and labels will be.
    """
    weights = class_weights(spec, class_sizes, epoch)
    weight = None if weights is None else torch.from_numpy(weights).float().to(device)
    return _BUILDERS[spec.loss](spec, class_sizes, epoch, torch.device(device), weight)


def ldam_margins(class_sizes: NDArray[np.int64], largest: float) -> NDArray[np.float64]:
    """Return LDAM's margin of each class, ``[C]``: proportional to n_c^(-1/4), the smallest class's is ``largest``.

    Cao et al. 2019, arXiv 1906.07413, equation 12. A class without images counts as one of one image.
    """
    margins = np.maximum(class_sizes, 1).astype(np.float64) ** -0.25
    scaled: NDArray[np.float64] = largest * margins / margins.max()
    return scaled


def _cross_entropy(
    spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int, device: torch.device, weight: Tensor | None
) -> Loss:
    return partial(functional.cross_entropy, weight=weight)


def _ldam(
    spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int, device: torch.device, weight: Tensor | None
) -> Loss:
    """Lower the true class's logit by its margin (equation 13); the head's logits are scaled, so the margin is too."""
    margins = torch.from_numpy(spec.ldam_scale * ldam_margins(class_sizes, spec.ldam_margin)).float().to(device)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        true_class = functional.one_hot(labels, len(margins))
        return functional.cross_entropy(logits - margins * true_class, labels, weight)

    return loss


def _focal(
    spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int, device: torch.device, weight: Tensor | None
) -> Loss:
    """Weigh -log p by (1 - p)^gamma, p = P(y|x) (Lin et al. 2017, arXiv 1708.02002, equation 4)."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        surprise = functional.cross_entropy(logits, labels, reduction="none")
        # Where p rounds to 1 the power's derivative is infinite for gamma < 1; its product with 0 must stay 0.
        doubt = (-torch.expm1(-surprise)).clamp(min=torch.finfo(surprise.dtype).tiny)
        values = doubt**spec.focal_gamma * surprise
        return values.mean() if weight is None else (weight[labels] * values).sum() / weight[labels].sum()

    return loss


def _balanced_softmax(
    spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int, device: torch.device, weight: Tensor | None
) -> Loss:
    """-log(p_y e^z_y / sum_j p_j e^z_j), p the epoch's priors (Ren et al. 2020, arXiv 2007.10740).

    The paper's p_j is n_j / n, that of instance sampling; under another sampler or weights it would balance twice.
    """
    return _shifted(np.log(class_priors(spec, class_sizes, epoch)), device, weight)


def _logit_adjustment(
    spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int, device: torch.device, weight: Tensor | None
) -> Loss:
    """Add tau times the epoch's log priors to the logits (Menon et al. 2021, arXiv 2007.07314, equation 10)."""
    return _shifted(spec.logit_tau * np.log(class_priors(spec, class_sizes, epoch)), device, weight)


def _shifted(shifts: NDArray[np.float64], device: torch.device, weight: Tensor | None) -> Loss:
    added = torch.from_numpy(shifts).float().to(device)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits + added, labels, weight)

    return loss


_BUILDERS = {
    "cross-entropy": _cross_entropy,
    "ldam": _ldam,
    "focal": _focal,
    "balanced-softmax": _balanced_softmax,
    "logit-adjustment": _logit_adjustment,
}
