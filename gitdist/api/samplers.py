"""The samplers of a study for a ``DataLoader`` of the user."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from gitdist.api.arguments import Labels, check_classes, check_count, check_names, check_settings, read_labels
from gitdist.balancing import read_fields
from gitdist.balancing.samplers import SAMPLERS
from gitdist.errors import SpecError
from gitdist.spec import TrialSpec
from gitdist.trial.plan import class_probabilities, epoch_indices

_MAX_CLASSES = 10_000_000  # more than any data set has; arrays as long as the largest label are counted


def sampler(
    labels: Labels,
    kind: str,
    *,
    num_samples: int | None = None,
    epochs: int | None = None,
    seed: int = 0,
    **options: float,
) -> "EpochSampler":
    """Return a sampler of a training set: which images each epoch has, and in which order.

    It gives the indices of a gitdist trial with the same seed. Call ``set_epoch`` before each epoch, as for torch's
    ``DistributedSampler``; Lightning does. Without it all epochs are the same.

        loader = DataLoader(dataset, batch_size=128, sampler=gitdist.sampler(labels, "class-balanced"))

    Args:
        labels: class of each training image, whole numbers from 0 up, ``[N]``.
        kind: ``instance`` (every image once), ``class-balanced``, ``square-root``, ``effective-number`` (Cui et al.
            2019, arXiv 1901.05555) or ``progressively-balanced`` (Kang et al. 2020, arXiv 1910.09217).
        num_samples: images in an epoch; None = N.
        epochs: of the whole training; ``progressively-balanced`` needs it.
        seed: of the order.
        options: ``effective_beta`` of ``effective-number`` (default 0.9999).

    Raises:
        SpecError: a kind or an option that does not exist, or a value out of range.
    """
    check_names("sampler", "sampler", [kind], SAMPLERS)
    check_names(f"sampler {kind}", "option", options, read_fields(SAMPLERS[kind]))
    if num_samples is not None:
        check_count("sampler", "num_samples", num_samples)
    row = read_labels("sampler", "labels", labels)
    check_classes("sampler", row, _MAX_CLASSES)
    lengths = {} if epochs is None else {"epochs": epochs}
    spec: TrialSpec = check_settings("sampler", TrialSpec, sampler=kind, seed=seed, **lengths, **options)
    if epochs is None and changes_over_epochs(spec, np.bincount(row)):
        raise SpecError(f"sampler {kind}: it changes over the training, whose length is missing; pass epochs")
    return EpochSampler(spec, row, num_samples, is_endless=epochs is None)


class EpochSampler(Sampler[int]):
    """Yields the indices of one epoch after another; ``set_epoch`` chooses the epoch, counted from 0."""

    def __init__(
        self, spec: TrialSpec, labels: NDArray[np.int64], num_samples: int | None, *, is_endless: bool
    ) -> None:
        """Take checked settings; see ``sampler``."""
        self.epoch = 0
        self._spec, self._labels, self._class_sizes = spec, labels, np.bincount(labels)
        self._num_samples, self._is_endless = num_samples or len(labels), is_endless

    def __repr__(self) -> str:
        return f"<gitdist.sampler: {self._spec.sampler}, {len(self)} samples, epoch {self.epoch}>"

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration.

        Raises:
            SpecError: it is negative, or not below the ``epochs`` of the training.
        """
        if epoch < 0 or not (self._is_endless or epoch < self._spec.epochs):
            limit = "0 or more" if self._is_endless else f"between 0 and {self._spec.epochs - 1}, the last one"
            raise SpecError(f"sampler: the epoch must be {limit}, but it is {epoch}")
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        number = self.epoch + 1  # trials count from 1
        indices = epoch_indices(self._spec, self._labels, self._class_sizes, number, self._num_samples)
        return iter(indices.tolist())

    def __len__(self) -> int:
        return self._num_samples


def changes_over_epochs(spec: TrialSpec, class_sizes: NDArray[np.int64]) -> bool:
    """Return whether a sampler draws the classes differently in the last epoch than in the first."""
    first, last = (class_probabilities(spec, class_sizes, epoch) for epoch in (1, spec.epochs))
    return not np.array_equal(first, last)
