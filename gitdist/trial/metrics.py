"""Metrics of a classifier from its log-probabilities: accuracies (balanced, many/medium/few), eKLD, consistency.

Each is a mean over classes of means over images, so its standard error follows from the variance of each class's mean.
It is that of the choice of evaluation images; seeds of training and generator are other sources of variance.

``values`` float64 ``[N]`` are one number per image, ``labels`` int64 ``[N]`` the images' classes of ``num_classes`` C.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gitdist.data.longtail import Groups


def per_class_mean(values: NDArray[np.float64], labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Return the mean of ``values`` over the images of each class, float64 ``[C]``, NaN for a class without images."""
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    sums = np.bincount(labels, weights=values, minlength=num_classes)
    means = np.full(num_classes, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def balanced_mean(per_class: NDArray[np.float64]) -> float:
    """Return the mean over the classes that have a value (not NaN): of accuracies, the balanced accuracy."""
    return float(per_class[~np.isnan(per_class)].mean())


def mean_variances(
    values: NDArray[np.float64], labels: NDArray[np.int64], groups: NDArray[np.int64] | None, num_classes: int
) -> NDArray[np.float64]:
    """Return the estimated sampling variance of each class's mean, float64 ``[C]``.

    With residuals r_i = value_i - mean of the class, n images and G groups in the class:
    ``G / (G - 1) * sum over groups of (sum of r_i in the group)^2 / n^2``, the cluster-robust variance of a mean (Liang
    and Zeger 1986). If every image is its own group (``groups`` is None) this is the usual ``sum r_i^2 / (n (n - 1))``.
    Images of different classes are taken as independent. A class with fewer than two groups has NaN.
    """
    counts = np.bincount(labels, minlength=num_classes)
    residuals = values - per_class_mean(values, labels, num_classes)[labels]
    sums, classes = residuals, labels
    if groups is not None:
        (classes, _), group = np.unique(np.stack([labels, groups]), axis=1, return_inverse=True)
        sums = np.bincount(group.ravel(), weights=residuals, minlength=len(classes)).astype(np.float64)
    number = np.bincount(classes, minlength=num_classes)
    squares = np.bincount(classes, weights=sums**2, minlength=num_classes)
    variances = np.full(num_classes, np.nan)
    known = number > 1
    variances[known] = number[known] / (number[known] - 1) * squares[known] / counts[known] ** 2
    return variances


def balanced_standard_error(per_class: NDArray[np.float64], variances: NDArray[np.float64]) -> float | None:
    """Return the standard error of ``balanced_mean``: ``sqrt(sum over classes of variance) / C``.

    The variance of a class with one group cannot be estimated. ``C / (C - 1)`` times its squared difference from the
    balanced mean replaces it: if all C classes have one group, this is the squared standard error of C independent
    values. The difference also contains the true difference between classes, so this is conservative (Lumley 2010,
    ``survey.lonely.psu = "adjust"``).

    Args:
        per_class: mean of each class, float64 ``[C]``, NaN for a class without images.
        variances: of these means, as ``mean_variances`` returns them.

    Returns:
        None if the only class with images has one group, or no class has images.
    """
    known = ~np.isnan(per_class)
    means, squares = per_class[known], variances[known].copy()
    num_classes, single = len(means), np.isnan(squares)
    if num_classes == 0 or (num_classes == 1 and single[0]):
        return None
    if single.any():
        squares[single] = num_classes / (num_classes - 1) * (means[single] - means.mean()) ** 2
    return math.sqrt(squares.sum()) / num_classes


def group_accuracies(accuracies: NDArray[np.float64], groups: Groups) -> dict[str, float]:
    """Return the mean of ``accuracies`` float64 ``[C]`` over the many-, medium- and few-shot classes that exist."""
    return {
        name: balanced_mean(accuracies[mask])
        for name, mask in groups.as_dict().items()
        if (mask & ~np.isnan(accuracies)).any()
    }


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log P(y|x) in float64 from logits ``[N, C]`` of any precision."""
    return torch.log_softmax(logits.double(), dim=1)


def expected_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the expectation over transformations of KL(P(.|x) || P(.|x')), in nats (Zhou et al. 2022, 2203.09739).

    A KL divergence is never negative, and exactly 0 where both distributions are the same.
    """
    log_p = log_p[:, None, :]
    # A probability of 0 contributes nothing, also where its logarithm is -inf.
    terms = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))
    return terms.sum(-1).clamp_(min=0.0).mean(1)


def consistency(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the share, in 0..1, of an image's transformations with the most probable class of the image."""
    return (log_p.argmax(-1, keepdim=True) == log_q.argmax(-1)).double().mean(1)


PAIR_METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ekld": expected_kl, "consistency": consistency}
"""Metrics of images x and their transformations x': functions of log P(.|x), float64 ``[n, C]``, and of log P(.|x'),
float64 ``[n, t, C]`` for t transformations of each image, with a value per image, float64 ``[n]``.

An epoch's row, and so MLflow, has each one's mean over classes as ``val/<name>``, its standard error as
``val/<name>_se``, and the classes as ``val/<name>_per_class``."""
