"""Published figures to set beside a report's own: Zhou et al., ICLR 2022 (arXiv 2203.09739)."""

from dataclasses import dataclass

from gitdist.spec import DataSpec


@dataclass(frozen=True)
class Published:
    """A published figure: balanced accuracy on test (0 to 1) of a method on a data set, and how it was reached."""

    data: str
    method: str
    balanced_accuracy: float
    source: str


_SOURCE = "Zhou et al. 2022, one generator, ResNet-32"
_CIFAR = {
    "cifar-10": (5000, Published("CIFAR-10-LT", "CE+DRS+GIT", 0.7876, _SOURCE)),
    "cifar-100": (500, Published("CIFAR-100-LT", "CE+DRS+GIT", 0.4435, _SOURCE)),
}
_FACTOR = 0.01  # smallest class / largest class


def published_figures(data: DataSpec) -> tuple[Published, ...]:
    """Return what is published for the very long tail that ``data`` describes: source and class sizes must agree."""
    largest, figure = _CIFAR.get(str(data.source), (0, None))
    profile = data.profile
    same = profile.kind == "exponential" and profile.factor == _FACTOR and profile.largest in (None, largest)
    return (figure,) if figure and same and data.nuisance == "none" else ()
