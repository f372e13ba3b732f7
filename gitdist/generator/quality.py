"""How good draws are, as pure functions of them: variation between the draws of an image, and class kept.

Draws are uint8 ``[N, D, C, H, W]``: D draws of each of N images. Grey levels are 0..255.
"""

import numpy as np
from numpy.typing import NDArray

from gitdist.data.nuisance import NUISANCES, find_nuisance

STATISTICS = {name: nuisance.statistic for name, nuisance in NUISANCES.items() if nuisance.statistic}
"""What a nuisance changes in an image, in words; no single number of an image shows a rotation."""


def pixel_deviations(draws: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return per image the standard deviation of a pixel over the draws, averaged over pixels, ``[N]``."""
    return np.array([image.std(0, dtype=np.float64, ddof=1).mean() for image in draws])


def pairwise_distances(draws: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return per image the mean absolute difference of two draws, averaged over pixels and pairs, ``[N]``."""
    return np.array([_mean_distance(image) for image in draws])


def nuisance_deviations(nuisance: str, draws: NDArray[np.uint8], clean: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return per image the standard deviation over the draws of the nuisance's statistic, ``[N]``.

    ``clean`` are the images before the nuisance. The value of an image without such pixels (background) is NaN.
    """
    pixels = find_nuisance(nuisance).pixels
    return np.array([_deviation(image, pixels(before)) for image, before in zip(draws, clean, strict=True)])


def object_deviations(draws: NDArray[np.uint8], clean: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return per image the standard deviation over the draws of the object's mean level, ``[N]``; NaN without object.

    The object is what is not 0 before the nuisance. A background does not change it: variation there is what a
    generator has mistaken for a nuisance.
    """
    return np.array([_deviation(image, (before != 0).any(0)) for image, before in zip(draws, clean, strict=True)])


def kept_shares(predictions: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Return per class the share of draws that a classifier predicts as their image's class, ``[C]``.

    ``predictions`` are ``[N, D]``, ``labels`` ``[N]``; a class without images gets NaN.
    """
    kept = (predictions == labels[:, None]).mean(1)
    return np.array(
        [kept[labels == index].mean() if (labels == index).any() else np.nan for index in range(num_classes)]
    )


def _mean_distance(draws: NDArray[np.uint8]) -> float:
    """Average over pairs without forming them: in sorted order, draw i is added i times, subtracted D - 1 - i times."""
    num = len(draws)
    weights = 2 * np.arange(num) - (num - 1)
    flat = np.sort(draws.reshape(num, -1), 0).astype(np.int64)
    return float((weights @ flat).mean() / (num * (num - 1) / 2))


def _deviation(draws: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """Return the standard deviation over draws ``[D, C, H, W]`` of the mean level of some pixels ``[H, W]``."""
    levels = draws[..., where].reshape(len(draws), -1)
    if not levels.size:
        return float("nan")
    return float(levels.sum(1, dtype=np.int64).std(ddof=1) / levels.shape[1])  # integers: exactly 0 if all are alike
