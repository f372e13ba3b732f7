"""How good draws are, as pure functions of them: variation between the draws of an image, and classes kept.

Draws stand as uint8 ``[N, D, C, H, W]``: D draws of each of N images. Grey levels are 0..255.
"""

import numpy as np
from numpy.typing import NDArray

STATISTICS = {"background": "background level", "dilation-erosion": "ink (mean level)"}
"""What a nuisance moves, by the nuisance; of a rotation no single number of an image tells."""


def pixel_deviations(draws: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return of each image the standard deviation of a pixel over the draws, averaged over pixels, ``[N]``."""
    return np.array([image.std(0, dtype=np.float64, ddof=1).mean() for image in draws])


def pairwise_distances(draws: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return of each image the mean absolute difference of two draws, averaged over pixels and pairs, ``[N]``."""
    return np.array([_mean_distance(image) for image in draws])


def nuisance_deviations(nuisance: str, draws: NDArray[np.uint8], clean: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return of each image the standard deviation over the draws of what its nuisance moves, ``[N]``.

    background: the mean level of the pixels that are 0 in every channel before the nuisance; dilation-erosion: that of
    all pixels.

    Args:
        nuisance: one of ``STATISTICS``.
        draws: uint8 ``[N, D, C, H, W]``.
        clean: the images before the nuisance, uint8 ``[N, C, H, W]``.

    Returns:
        float64 ``[N]``; NaN for an image without background.
    """
    if nuisance == "background":
        return np.array([_deviation(image, (before == 0).all(0)) for image, before in zip(draws, clean, strict=True)])
    return np.array([_deviation(image, np.ones(image.shape[2:], bool)) for image in draws])


def object_deviations(draws: NDArray[np.uint8], clean: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return of each image the standard deviation over the draws of the object's mean level, ``[N]``.

    The object is what is not 0 before the nuisance. A background leaves it alone: whatever varies there, a generator
    has taken for a nuisance by itself.

    Args:
        draws: uint8 ``[N, D, C, H, W]``.
        clean: the images before the nuisance, uint8 ``[N, C, H, W]``.

    Returns:
        float64 ``[N]``; NaN for an image without object.
    """
    return np.array([_deviation(image, (before != 0).any(0)) for image, before in zip(draws, clean, strict=True)])


def kept_shares(predictions: NDArray[np.int64], labels: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Return of each class the share of draws that a classifier answers as their image's class, float64 ``[C]``.

    Args:
        predictions: its answers, ``[N, D]``.
        labels: the images' classes, ``[N]``.
        num_classes: C; a class without images gets NaN.
    """
    kept = (predictions == labels[:, None]).mean(1)
    return np.array(
        [kept[labels == index].mean() if (labels == index).any() else np.nan for index in range(num_classes)]
    )


def _mean_distance(draws: NDArray[np.uint8]) -> float:
    """Average over pairs without forming them: in rising order, draw i is added i times, taken away D - 1 - i times."""
    num = len(draws)
    weights = 2 * np.arange(num) - (num - 1)
    flat = np.sort(draws.reshape(num, -1), 0).astype(np.int64)
    return float((weights @ flat).mean() / (num * (num - 1) / 2))


def _deviation(draws: NDArray[np.uint8], where: NDArray[np.bool_]) -> float:
    """Return the standard deviation over draws ``[D, C, H, W]`` of the mean level of some pixels ``[H, W]``."""
    levels = draws[..., where].reshape(len(draws), -1)
    if not levels.size:
        return float("nan")
    return float(levels.sum(1, dtype=np.int64).std(ddof=1) / levels.shape[1])  # whole numbers: 0 where all are alike
