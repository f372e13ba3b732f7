"""Batch samplers: which training rows an epoch visits, in which order."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def class_probabilities(
    sampler: str, class_sizes: NDArray[np.int64], beta: float, progress: float = 1.0
) -> NDArray[np.float64]:
    """Return the probability with which each class is drawn, float64 ``[C]``; a class without images has 0.

    instance: proportional to n_c; class-balanced: equal; square-root: to n_c^(1/2); effective-number: to
    n_c (1 - beta) / (1 - beta^n_c), the images weighted by the inverse effective number of Cui et al. 2019 (arXiv
    1901.05555, equation 3); progressively-balanced: from instance to class-balanced as ``progress`` grows, their
    mixture of Kang et al. 2020 (arXiv 1910.09217).

    Args:
        sampler: the sampler's name.
        class_sizes: training images of each class, int64 ``[C]``.
        beta: of the effective number, between 0 and 1.
        progress: t / T, the share of the sampler's epochs that are over with this one.
    """
    if sampler == "progressively-balanced":
        first, last = (class_probabilities(name, class_sizes, beta) for name in ("instance", "class-balanced"))
        return (1 - progress) * first + progress * last
    weights = _WEIGHTS[sampler](class_sizes.astype(np.float64), beta)
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


def epoch_indices(
    sampler: str,
    labels: NDArray[np.int64],
    class_sizes: NDArray[np.int64],
    beta: float,
    rng: np.random.Generator,
    progress: float = 1.0,
) -> NDArray[np.int64]:
    """Return the training rows of one epoch in order, int64 ``[N]`` for N training images.

    instance: every row once, shuffled; every other sampler draws with replacement, first the class by
    ``class_probabilities``, then one of its rows uniformly.

    Args:
        sampler: the sampler's name.
        labels: class of each training row, int64 ``[N]``.
        class_sizes: rows of each class, int64 ``[C]``.
        beta: of the effective number, between 0 and 1.
        rng: the only source of randomness.
        progress: as in ``class_probabilities``.
    """
    if sampler == "instance":
        return rng.permutation(len(labels))
    probabilities = class_probabilities(sampler, class_sizes, beta, progress)
    classes = rng.choice(len(class_sizes), size=len(labels), p=probabilities)
    within = rng.integers(0, class_sizes[classes])
    by_class = np.argsort(labels, kind="stable")
    starts = np.cumsum(class_sizes) - class_sizes
    rows: NDArray[np.int64] = by_class[starts[classes] + within]
    return rows


def effective_numbers(sizes: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Return (1 - beta^n) / (1 - beta) for each n, exact also where beta^n is close to 1.

    Args:
        sizes: images of each class, float64 ``[C]``.
        beta: between 0 and 1.
    """
    numbers: NDArray[np.float64] = np.expm1(sizes * np.log(beta)) / (beta - 1)
    return numbers


_WEIGHTS: dict[str, Callable[[NDArray[np.float64], float], NDArray[np.float64]]] = {
    "instance": lambda sizes, beta: sizes,
    "class-balanced": lambda sizes, beta: np.sign(sizes),
    "square-root": lambda sizes, beta: np.sqrt(sizes),
    "effective-number": lambda sizes, beta: sizes / effective_numbers(np.maximum(sizes, 1), beta),
}
