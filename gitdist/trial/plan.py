"""What an epoch will do, known before it begins: which rows it visits, and which of them become draws.

Both follow from the trial's seed and the epoch alone, so a trial can say at its start how many draws it will take.
"""

import numpy as np
from numpy.typing import NDArray

from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec
from gitdist.trial.mixing import replace_mask
from gitdist.trial.sampling import class_probabilities, epoch_indices


def epoch_rows(spec: TrialSpec, labels: NDArray[np.int64], sizes: NDArray[np.int64], epoch: int) -> NDArray[np.int64]:
    """Return the training rows of an epoch in order, int64 ``[N]``: instance sampling up to the switch.

    Args:
        spec: the trial.
        labels: class of each training row, int64 ``[N]``.
        sizes: training images of each class, int64 ``[C]``.
        epoch: counted from 1.
    """
    sampler, progress = _epoch_sampler(spec, epoch)
    rng = numpy_rng(spec.seed, "trial/sample", epoch)
    return epoch_indices(sampler, labels, sizes, spec.effective_beta, rng, progress)


def epoch_probabilities(spec: TrialSpec, sizes: NDArray[np.int64], epoch: int) -> NDArray[np.float64]:
    """Return the probability with which a sample of an epoch is of each class, float64 ``[C]``.

    Args:
        spec: the trial.
        sizes: training images of each class, int64 ``[C]``.
        epoch: counted from 1.
    """
    sampler, progress = _epoch_sampler(spec, epoch)
    return class_probabilities(sampler, sizes, spec.effective_beta, progress)


def replaced_rows(
    spec: TrialSpec, visited: NDArray[np.int64], sizes: NDArray[np.int64], epoch: int
) -> NDArray[np.bool_]:
    """Return which of an epoch's samples become draws, batch by batch as Algorithm 1 says, bool ``[N]``.

    Args:
        spec: the trial.
        visited: class of each sample in the epoch's order, int64 ``[N]``.
        sizes: training images of each class, int64 ``[C]``.
        epoch: counted from 1.
    """
    if epoch <= spec.switch_epoch or spec.fraction == 0:
        return np.zeros(len(visited), np.bool_)
    rng = numpy_rng(spec.seed, "trial/mixing", epoch)
    batches = [visited[start : start + spec.batch_size] for start in range(0, len(visited), spec.batch_size)]
    kind = spec.threshold_kind
    return np.concatenate([replace_mask(batch, sizes, spec.threshold, kind, spec.fraction, rng) for batch in batches])


def draws_needed(
    spec: TrialSpec, labels: NDArray[np.int64], sizes: NDArray[np.int64], first_epoch: int = 1
) -> NDArray[np.int64]:
    """Return how many draws of each class the trial takes from ``first_epoch`` to its end, int64 ``[C]``.

    Args:
        spec: the trial.
        labels: class of each training row, int64 ``[N]``.
        sizes: training images of each class, int64 ``[C]``.
        first_epoch: counted from 1.
    """
    needed = np.zeros(len(sizes), np.int64)
    if spec.fraction > 0:
        for epoch in range(max(first_epoch, spec.switch_epoch + 1), spec.epochs + 1):
            visited = labels[epoch_rows(spec, labels, sizes, epoch)]
            needed += np.bincount(visited[replaced_rows(spec, visited, sizes, epoch)], minlength=len(sizes))
    return needed


def _epoch_sampler(spec: TrialSpec, epoch: int) -> tuple[str, float]:
    """Return an epoch's sampler and its progress as in ``class_probabilities``."""
    sampler = spec.sampler if epoch > spec.switch_epoch else "instance"
    return sampler, (epoch - spec.switch_epoch) / max(1, spec.epochs - spec.switch_epoch)
