"""Algorithm 1 of Zhou et al. 2022 (arXiv 2203.09739): which samples of a batch become generator outputs."""

import numpy as np
from numpy.typing import NDArray

from gitdist.errors import SpecError


def replace_mask(
    labels: NDArray[np.int64],
    class_sizes: NDArray[np.int64],
    threshold: float | None,
    kind: str,
    fraction: float,
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Return which samples of a batch are replaced, bool ``[n]``.

    Only the first ``int(fraction * n)`` can be, and of them those whose class has fewer than K images. The soft
    threshold keeps such a replacement with probability ``max(0, (K - n_c) / (K - n_min))``.

    Args:
        labels: class of each sample of the batch, int64 ``[n]``.
        class_sizes: training images of each class, int64 ``[C]``.
        threshold: K in images; None = all classes.
        kind: ``hard`` or ``soft``.
        fraction: p, the share of the batch that may be replaced, 0..1.
        rng: read for the soft threshold alone.
    """
    mask = np.zeros(len(labels), dtype=np.bool_)
    first = labels[: int(fraction * len(labels))]
    probabilities = replacement_probabilities(class_sizes, threshold, kind)[first]
    if kind == "soft" and threshold is not None:
        mask[: len(first)] = rng.random(len(first)) < probabilities
    else:
        mask[: len(first)] = probabilities > 0
    return mask


def replacement_probabilities(
    class_sizes: NDArray[np.int64], threshold: float | None, kind: str
) -> NDArray[np.float64]:
    """Return the probability with which a sample of each class among the first p is replaced, float64 ``[C]``.

    Args:
        class_sizes: training images of each class, int64 ``[C]``.
        threshold: K in images; None = all classes.
        kind: ``hard`` or ``soft``.
    """
    if threshold is None:
        return np.ones(len(class_sizes))
    if kind == "hard":
        return (class_sizes < threshold).astype(np.float64)
    probabilities: NDArray[np.float64] = np.maximum(0.0, (threshold - class_sizes) / (threshold - class_sizes.min()))
    return probabilities


def eligible_classes(class_sizes: NDArray[np.int64], threshold: float | None, kind: str) -> NDArray[np.bool_]:
    """Return the classes that can be replaced at all, bool ``[C]``; arguments as in ``replacement_probabilities``."""
    return replacement_probabilities(class_sizes, threshold, kind) > 0


def check_threshold(threshold: float | None, kind: str, class_sizes: NDArray[np.int64]) -> None:
    """Refuse a soft threshold that no class lies under.

    Args:
        threshold: K in images; None = all classes.
        kind: ``hard`` or ``soft``.
        class_sizes: training images of each class, int64 ``[C]``.

    Raises:
        SpecError: the threshold is soft and not above the smallest class's size.
    """
    smallest = int(class_sizes.min())
    if kind == "soft" and threshold is not None and threshold <= smallest:
        raise SpecError(
            f"a soft threshold must be above the smallest class's size, but trial.threshold = {threshold:g} and that "
            f"class has {smallest} images; raise it (in search.space too) or set trial.threshold_kind to hard"
        )
