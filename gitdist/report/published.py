"""Published figures to set beside a report's own: Zhou et al., ICLR 2022 (arXiv 2203.09739)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gitdist.data.longtail import profile_sizes
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


def published_figures(data: DataSpec, sizes: NDArray[np.int64]) -> tuple[Published, ...]:
    """Return what is published for the very same long tail.

    Args:
        data: names source and nuisance.
        sizes: training images of each class, int64 ``[C]``.
    """
    official, figure = _CIFAR.get(data.source, ([], None))
    same = data.nuisance == "none" and figure and sizes.tolist() == profile_sizes(_PROFILE, official)
    return (figure,) if figure and same else ()
