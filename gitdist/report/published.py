"""Published figures to set beside a report's own: Zhou et al., ICLR 2022 (arXiv 2203.09739)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gitdist.data.longtail import profile_sizes
from gitdist.report.records import Classes
from gitdist.spec import DataSpec, ProfileSpec


@dataclass(frozen=True)
class Published:
    """A published figure: balanced accuracy on test (0 to 1) of a method on a data set, and how it was reached."""

    data: str
    method: str
    balanced_accuracy: float
    source: str


_SOURCE = "Zhou et al. 2022, one generator, ResNet-32"
_CIFAR = {
    "cifar-10": (10 * [5000], Published("CIFAR-10-LT", "CE+DRS+GIT", 0.7876, _SOURCE)),
    "cifar-100": (100 * [500], Published("CIFAR-100-LT", "CE+DRS+GIT", 0.4435, _SOURCE)),
}
_PROFILE = ProfileSpec(kind="exponential", factor=0.01)


def published_figures(data: DataSpec, classes: Classes) -> tuple[Published, ...]:
    """Return what is published for the very same long tail: as many distinct training images in every class.

    Args:
        data: names source and nuisance.
        classes: of the data set.
    """
    official, figure = _CIFAR.get(data.source, ([], None))
    if figure is None or data.nuisance != "none" or len(classes.sizes) != len(official):
        return ()
    distinct = _distinct_before(data, classes.sizes, official[0]) if classes.distinct is None else classes.distinct
    return (figure,) if distinct.tolist() == profile_sizes(_PROFILE, official) else ()


def _distinct_before(data: DataSpec, sizes: NDArray[np.int64], official: int) -> NDArray[np.int64]:
    """Return the distinct training images per class of CIFAR where they were not recorded, int64 ``[C]``.

    Up to version 0.5.0 a class for which the profile asked for more images than were left after holding out validation
    was filled with copies.
    """
    held_out = max(min(int(data.validation * official), data.validation_per_class or official), 1)
    return np.minimum(sizes, official - held_out)
