"""What each epoch of a trial does, as its spec says: images, class weights and loss.

Epochs count from 1. ``class_sizes`` int64 ``[C]`` are the training images of each class. Everything follows from the
spec, its seed and the epoch alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

import numpy as np
from numpy.typing import NDArray

from gitdist.balancing import read_fields
from gitdist.balancing.losses import LOSSES, ClassStatistics
from gitdist.balancing.samplers import SAMPLERS, effective_sizes
from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec

if TYPE_CHECKING:  # slow to import; only the loss needs it
    import torch
    from torch import nn


def class_probabilities(spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int) -> NDArray[np.float64]:
    """Return the probability with which a sample of an epoch is of each class, float64 ``[C]``."""
    sampler = with_fields(SAMPLERS[_sampler(spec, epoch)], spec)
    progress = (epoch - spec.switch_epoch) / max(1, spec.epochs - spec.switch_epoch)
    probabilities: NDArray[np.float64] = sampler(class_sizes.astype(np.float64), progress)
    return probabilities


def epoch_indices(
    spec: TrialSpec,
    labels: NDArray[np.int64],
    class_sizes: NDArray[np.int64],
    epoch: int,
    num_samples: int | None = None,
) -> NDArray[np.int64]:
    """Return the training images of an epoch in order, int64 ``[num_samples]``, by default as many as there are.

    instance, and every sampler up to the switch: every image once, shuffled, before any comes again. Every other
    sampler draws with replacement, first the class by ``class_probabilities``, then one of its images uniformly.
    ``labels`` int64 ``[N]`` are the classes of the training images.
    """
    rng = numpy_rng(spec.seed, "trial/sample", epoch)
    count = len(labels) if num_samples is None else num_samples
    if _sampler(spec, epoch) == "instance":
        rounds = [rng.permutation(len(labels)) for _ in range(0, count, len(labels))]
        return np.concatenate(rounds)[:count]
    probabilities = class_probabilities(spec, class_sizes, epoch)
    classes = rng.choice(len(class_sizes), size=count, p=probabilities)
    within = rng.integers(0, class_sizes[classes])
    by_class = np.argsort(labels, kind="stable")
    starts = np.cumsum(class_sizes) - class_sizes
    indices: NDArray[np.int64] = by_class[starts[classes] + within]
    return indices


def class_weights(spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int) -> NDArray[np.float64] | None:
    """Return the weight of each class's samples in an epoch's loss, ``[C]`` with the sum C; None = all alike.

    inverse: proportional to 1 / n_c; effective-number: to (1 - beta) / (1 - beta^n_c) (Cui et al. 2019, arXiv
    1901.05555, equation 4). Deferred weights (DRW: Cao et al. 2019, arXiv 1906.07413) begin after the switch. A class
    without images has weight 0.
    """
    if spec.weights_deferred and epoch <= spec.switch_epoch:
        return None
    numbers = np.maximum(class_sizes, 1).astype(np.float64)
    match spec.class_weights:
        case "none":
            return None
        case "inverse":
            pass
        case "effective-number":
            numbers = effective_sizes(numbers, spec.effective_beta)
        case unknown:
            assert_never(unknown)
    weights = np.sign(class_sizes) / numbers
    normalised: NDArray[np.float64] = weights * len(weights) / weights.sum()
    return normalised


def class_priors(spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int) -> NDArray[np.float64]:
    """Return each class's share of an epoch's loss, float64 ``[C]`` with the sum 1.

    Proportional to the probability with which the epoch draws the class, times its weight: the answer that minimises
    the weighted cross-entropy where an image says nothing. So n_c / n under instance sampling without weights. A class
    without images counts as one of one image.
    """
    sizes = np.maximum(class_sizes, 1)
    probabilities, weights = class_probabilities(spec, sizes, epoch), class_weights(spec, sizes, epoch)
    if weights is None:
        return probabilities
    shares = probabilities * weights
    priors: NDArray[np.float64] = shares / shares.sum()
    return priors


def build_loss(
    spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int, device: torch.device | str = "cpu"
) -> nn.Module:
    """Return the loss of an epoch, for logits and labels on ``device``."""
    import torch

    weights = class_weights(spec, class_sizes, epoch)
    classes = ClassStatistics(
        sizes=class_sizes,
        priors=class_priors(spec, class_sizes, epoch),
        weight=None if weights is None else torch.from_numpy(weights).float().to(device),
        device=torch.device(device),
    )
    loss: nn.Module = with_fields(LOSSES[spec.loss], spec)(classes)
    return loss


def _sampler(spec: TrialSpec, epoch: int) -> str:
    return spec.sampler if epoch > spec.switch_epoch else "instance"


def with_fields(rule: Callable[..., Any], spec: TrialSpec) -> Callable[..., Any]:
    """Return a sampler, a loss, an optimizer or a schedule with the trial's fields that it reads."""
    return partial(rule, **{name: getattr(spec, name) for name in read_fields(rule)})
