"""Measures of a classifier from its log-probabilities: accuracies (balanced, many/medium/few), eKLD, consistency."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gitdist.data.longtail import Groups


def per_class_mean(values: NDArray[np.float64], labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Return the mean of ``values`` over the rows of each class, float64 ``[C]``, NaN for a class without rows.

    Args:
        values: one number a row, ``[N]``.
        labels: class of each row, int64 ``[N]``.
        num_classes: C.
    """
    counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    sums = np.bincount(labels, weights=values, minlength=num_classes)
    means = np.full(num_classes, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def class_accuracies(
    predictions: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int
) -> NDArray[np.float64]:
    """Return the accuracy on each class, float64 ``[C]`` in 0..1, NaN for a class without rows.

    Args:
        predictions: predicted class of each row, int64 ``[N]``.
        labels: true class of each row, int64 ``[N]``.
        num_classes: C.
    """
    return per_class_mean((predictions == labels).astype(np.float64), labels, num_classes)


def balanced_mean(per_class: NDArray[np.float64]) -> float:
    """Return the mean over the classes that have a value: of accuracies, the balanced accuracy.

    Args:
        per_class: float64 ``[C]``, NaN where a class has no rows.
    """
    return float(per_class[~np.isnan(per_class)].mean())


def group_accuracies(accuracies: NDArray[np.float64], groups: Groups) -> dict[str, float]:
    """Return the mean accuracy of the many-, medium- and few-shot classes; a group without classes is left out.

    Args:
        accuracies: per class, float64 ``[C]``.
        groups: the classes of each group.
    """
    return {
        name: balanced_mean(accuracies[mask])
        for name, mask in groups.as_dict().items()
        if (mask & ~np.isnan(accuracies)).any()
    }


def log_probabilities(logits: Tensor) -> Tensor:
    """Return log P(y|x) in float64 from logits ``[N, C]`` of any precision."""
    return torch.log_softmax(logits.double(), dim=1)


def kl_divergences(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return KL(P || Q) in nats, float64 ``[...]``, never negative and exactly 0 where P and Q are the same.

    Args:
        log_p: log-probabilities of the untransformed images, float64 ``[..., C]``.
        log_q: log-probabilities of the transformed images, broadcast against ``log_p``.
    """
    # A probability of 0 contributes nothing, also where its logarithm is -inf.
    terms = torch.where(log_p.isneginf(), 0.0, log_p.exp() * (log_p - log_q))
    return terms.sum(-1).clamp_(min=0.0)


def expected_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the expectation over transformations of KL(P(.|x) || P(.|x')) for each image, float64 ``[n]``, in nats.

    The measure of Zhou et al. 2022 (arXiv 2203.09739), x and x' being one image before and after.

    Args:
        log_p: log P(.|x), float64 ``[n, C]``.
        log_q: log P(.|x'), float64 ``[n, t, C]``, ``log_q[i, j]`` of transformation j of image i.
    """
    return kl_divergences(log_p[:, None, :], log_q).mean(1)


def consistency(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the share of an image's transformations with the answer that the image has, float64 ``[n]`` in 0..1.

    Args:
        log_p: log P(.|x), float64 ``[n, C]``; the answer is the most probable class.
        log_q: log P(.|x'), float64 ``[n, t, C]``, ``log_q[i, j]`` of transformation j of image i.
    """
    return (log_p.argmax(-1, keepdim=True) == log_q.argmax(-1)).double().mean(1)
