"""The samplers: the probability with which an epoch draws each class.

A sampler is a function of the class sizes, float64 ``[C]``, and of ``progress``, the share t / T of its epochs that are
over with this one. It returns float64 ``[C]`` with the sum 1, and 0 for a class without images.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def instance(sizes: NDArray[np.float64], progress: float) -> NDArray[np.float64]:
    """Draw every image alike: proportional to n_c."""
    return _normalised(sizes)


def class_balanced(sizes: NDArray[np.float64], progress: float) -> NDArray[np.float64]:
    """Draw every class alike."""
    return _normalised(np.sign(sizes))


def square_root(sizes: NDArray[np.float64], progress: float) -> NDArray[np.float64]:
    """Draw proportionally to n_c^(1/2)."""
    return _normalised(np.sqrt(sizes))


def effective_number(sizes: NDArray[np.float64], progress: float, *, effective_beta: float) -> NDArray[np.float64]:
    """Draw images with the inverse of their class's effective number as weight (Cui et al. 2019, arXiv 1901.05555)."""
    return _normalised(sizes / effective_sizes(np.maximum(sizes, 1), effective_beta))


def progressively_balanced(sizes: NDArray[np.float64], progress: float) -> NDArray[np.float64]:
    """Go from instance to class-balanced sampling, by their mixture (Kang et al. 2020, arXiv 1910.09217)."""
    return (1 - progress) * instance(sizes, progress) + progress * class_balanced(sizes, progress)


def effective_sizes(sizes: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Return each class's effective number of images, (1 - beta^n) / (1 - beta), exact also if beta^n is near 1."""
    numbers: NDArray[np.float64] = np.expm1(sizes * np.log(beta)) / (beta - 1)
    return numbers


def _normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    probabilities: NDArray[np.float64] = weights / weights.sum()
    return probabilities


SAMPLERS: dict[str, Callable[..., NDArray[np.float64]]] = {
    "instance": instance,
    "class-balanced": class_balanced,
    "square-root": square_root,
    "effective-number": effective_number,
    "progressively-balanced": progressively_balanced,
}
