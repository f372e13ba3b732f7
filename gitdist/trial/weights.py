"""What the classes count for in the loss of an epoch: their weights, and the priors that sampler and weights make."""

import numpy as np
from numpy.typing import NDArray

from gitdist.spec import TrialSpec
from gitdist.trial.plan import epoch_probabilities
from gitdist.trial.sampling import effective_numbers


def class_weights(spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int) -> NDArray[np.float64] | None:
    """Return the weight of each class's samples in an epoch's loss, ``[C]`` with the sum C; None = all alike.

    inverse: proportional to 1 / n_c; effective-number: to (1 - beta) / (1 - beta^n_c) (Cui et al. 2019, arXiv
    1901.05555, equation 4). Deferred weights (DRW: Cao et al. 2019, arXiv 1906.07413) begin after the switch.

    Args:
        spec: the trial.
        class_sizes: training images of each class, int64 ``[C]``; a class without images has weight 0.
        epoch: counted from 1.
    """
    if spec.class_weights == "none" or (spec.weights_deferred and epoch <= spec.switch_epoch):
        return None
    sizes = np.maximum(class_sizes, 1).astype(np.float64)
    numbers = sizes if spec.class_weights == "inverse" else effective_numbers(sizes, spec.effective_beta)
    weights = np.sign(class_sizes) / numbers
    normalised: NDArray[np.float64] = weights * len(weights) / weights.sum()
    return normalised


def class_priors(spec: TrialSpec, class_sizes: NDArray[np.int64], epoch: int) -> NDArray[np.float64]:
    """Return each class's share of an epoch's loss, float64 ``[C]`` with the sum 1.

    Proportional to the probability with which the epoch draws the class, times its weight: the answer that minimises
    the weighted cross-entropy where an image says nothing. So n_c / n under instance sampling without weights.

    Args:
        spec: the trial.
        class_sizes: training images of each class, int64 ``[C]``; a class without images counts as one of one image.
        epoch: counted from 1.
    """
    sizes = np.maximum(class_sizes, 1)
    probabilities, weights = epoch_probabilities(spec, sizes, epoch), class_weights(spec, sizes, epoch)
    if weights is None:
        return probabilities
    shares = probabilities * weights
    priors: NDArray[np.float64] = shares / shares.sum()
    return priors
