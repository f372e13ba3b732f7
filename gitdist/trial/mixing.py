"""Algorithm 1 of Zhou et al. 2022 (arXiv 2203.09739): which samples of a trial become draws of the generator.

Of each batch only the first ``int(p * n)`` samples can, and of them those whose class has fewer than K images. With a
soft threshold such a sample is replaced with probability ``max(0, (K - n_c) / (K - n_min))``. All of it follows from
the spec, its seed and the epoch, so a trial knows at its start how many draws it will take.

Epochs count from 1. ``class_sizes`` int64 ``[C]`` are the training images of each class.
"""

from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from gitdist.errors import SpecError
from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec
from gitdist.trial.plan import epoch_indices


def replacement_probabilities(spec: TrialSpec, class_sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the probability with which a sample among the first p of a batch is replaced, by class, ``[C]``.

    Raises:
        SpecError: the threshold is soft and not above the smallest class's size.
    """
    if spec.threshold is None:
        return np.ones(len(class_sizes))
    match spec.threshold_kind:
        case "hard":
            return (class_sizes < spec.threshold).astype(np.float64)
        case "soft":
            smallest = int(class_sizes.min())
            if spec.threshold <= smallest:
                raise SpecError(
                    f"a soft threshold must be above the smallest class's size, but threshold = {spec.threshold:g} and "
                    f"that class has {smallest} images; raise it (in a study in search.space too) or set "
                    "threshold_kind to hard"
                )
            below = spec.threshold - class_sizes
            probabilities: NDArray[np.float64] = np.maximum(0.0, below / (spec.threshold - smallest))
            return probabilities
        case unknown:
            assert_never(unknown)


def replaced_samples(
    spec: TrialSpec, labels: NDArray[np.int64], class_sizes: NDArray[np.int64], epoch: int
) -> NDArray[np.bool_]:
    """Return which of an epoch's samples, of the classes ``labels`` int64 ``[N]`` in its order, become draws."""
    replaced = np.zeros(len(labels), np.bool_)
    if epoch <= spec.switch_epoch:
        return replaced
    probabilities = replacement_probabilities(spec, class_sizes)
    rng = numpy_rng(spec.seed, "trial/mixing", epoch)
    for start in range(0, len(labels), spec.batch_size):
        batch = slice(start, start + spec.batch_size)
        replaced[batch] = replaced_of_batch(labels[batch], probabilities, spec.fraction, rng)
    return replaced


def replaced_of_batch(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], fraction: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which samples of one batch become draws, bool ``[n]``.

    Args:
        labels: the samples' classes, int64 ``[n]``.
        probabilities: of ``replacement_probabilities``, ``[C]``.
        fraction: p.
        rng: gives one number for each of the first ``int(p * n)`` samples.
    """
    first = labels[: int(fraction * len(labels))]
    replaced = np.zeros(len(labels), np.bool_)
    replaced[: len(first)] = rng.random(len(first)) < probabilities[first]
    return replaced


def augmented_classes(spec: TrialSpec, class_sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return the classes of which a trial replaces samples by draws, bool ``[C]``.

    Raises:
        SpecError: as ``replacement_probabilities``, also if the trial replaces nothing.
    """
    replaced = (replacement_probabilities(spec, class_sizes) > 0) & (class_sizes > 0)
    if spec.switch_epoch >= spec.epochs or not any(replaceable_samples(spec, int(class_sizes.sum()))):
        return np.zeros(len(class_sizes), np.bool_)
    return replaced


def replaceable_samples(spec: TrialSpec, num_samples: int) -> list[int]:
    """Return how many samples of an epoch's full batches, and of its last one, Algorithm 1 may replace."""
    batches = [min(spec.batch_size, num_samples), num_samples % spec.batch_size]
    return [int(spec.fraction * batch) for batch in batches]


def draws_needed(spec: TrialSpec, labels: NDArray[np.int64], class_sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many draws of each class a trial takes, int64 ``[C]``; ``labels`` are those of the training images."""
    needed = np.zeros(len(class_sizes), np.int64)
    if augmented_classes(spec, class_sizes).any():
        for epoch in range(spec.switch_epoch + 1, spec.epochs + 1):
            in_order = labels[epoch_indices(spec, labels, class_sizes, epoch)]
            replaced = replaced_samples(spec, in_order, class_sizes, epoch)
            needed += np.bincount(in_order[replaced], minlength=len(class_sizes))
    return needed
