"""Class sizes of a long tail, and the many-, medium- and few-shot groups that follow from them. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gitdist.errors import SpecError
from gitdist.seeds import numpy_rng
from gitdist.spec import GroupsSpec, ProfileSpec

_AUTO = GroupsSpec()


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """Which classes are many-, medium- and few-shot: boolean masks ``[C]`` that together hold every class once."""

    many: NDArray[np.bool_]
    medium: NDArray[np.bool_]
    few: NDArray[np.bool_]
    rule: str

    def as_dict(self) -> dict[str, NDArray[np.bool_]]:
        """Return the masks by name, the largest classes first; a mask may be empty."""
        return {"many": self.many, "medium": self.medium, "few": self.few}


def profile_sizes(profile: ProfileSpec, available: Sequence[int]) -> list[int]:
    """Return the profile's sizes, by rank for zipf and by class otherwise.

    zipf: ``max(floor(largest / k^exponent), smallest)`` for rank k = 1..C; power: the same, where the ranks are those
    of the classes by falling ``available``, ties by class (the rule that GTSRB-LT is named for, with exponent 1.8; Zhou
    et al. 2022); exponential:
    ``floor(largest * factor^(c / (C-1)))`` (Cui et al. 2019); step: ``largest`` for the first classes and
    ``floor(largest * factor)`` for the last ``minority`` share (Buda et al. 2018); none: all that are there, at most
    ``largest``. No class is smaller than 1. Of all kinds but none, a size may be more than the class has.

    Args:
        profile: the kind with its figures.
        available: images that each class has, ``[C]``.
    """
    num_classes = len(available)
    largest = profile.largest or max(available)
    if profile.kind == "none":
        return [min(largest, count) for count in available]
    if profile.kind in ("zipf", "power"):
        by_rank = [max(floor(largest / k**profile.exponent), profile.smallest) for k in range(1, num_classes + 1)]
        return by_rank if profile.kind == "zipf" else _in_order(by_rank, available)
    if profile.kind == "exponential":
        steps = max(num_classes - 1, 1)
        return [max(floor(largest * profile.factor ** (c / steps)), 1) for c in range(num_classes)]
    num_small = floor(profile.minority * num_classes)
    small = max(floor(largest * profile.factor), 1)
    return [largest] * (num_classes - num_small) + [small] * num_small


def _in_order(by_rank: Sequence[int], available: Sequence[int]) -> list[int]:
    order = np.argsort(-np.asarray(available), kind="stable").tolist()
    sizes = dict(zip(order, by_rank, strict=True))
    return [sizes[label] for label in range(len(available))]


def class_sizes(profile: ProfileSpec, available: Sequence[int], version: int) -> list[int]:
    """Return the number of training images that the profile asks for of each class, ``[C]``.

    Args:
        profile: the class-size profile.
        available: images that each class has, ``[C]``.
        version: shuffles the ranks of a zipf profile over the classes, so that size and class are not confounded.
    """
    sizes = profile_sizes(profile, available)
    if profile.kind != "zipf":
        return sizes
    ranks = numpy_rng(version, "data/ranks").permutation(len(sizes))
    return [sizes[rank] for rank in ranks]


def size_groups(sizes: Sequence[int], groups: Literal["auto"] | GroupsSpec) -> Groups:
    """Return the many-, medium- and few-shot classes.

    Args:
        sizes: training images of each class, ``[C]``.
        groups: the two sizes that separate the groups; ``"auto"`` takes 100 and 20 where no group is empty then,
            else thirds of the classes by size. In thirds, classes of one size stay together, in the smaller group.

    Raises:
        SpecError: the bounds cross.
    """
    array = np.asarray(sizes, dtype=np.int64)
    if groups != "auto":
        if groups.few > groups.many + 1:
            raise SpecError(
                f"no class may be many- and few-shot at once, but groups.few = {groups.few} leaves sizes above "
                f"groups.many = {groups.many}; choose few <= many"
            )
        return _bounded(array, groups)
    bounded = _bounded(array, _AUTO)
    return bounded if all(mask.any() for mask in bounded.as_dict().values()) else _thirds(array)


def suggested_threshold(sizes: NDArray[np.int64], groups: Groups) -> int | None:
    """Return a class-size threshold K to begin with: 1 + the largest class that is not many-shot.

    Classes below K are augmented, so that these are all but the many-shot ones, which are invariant already and get
    worse by it (Zhou et al. 2022).

    Args:
        sizes: training images of each class, ``[C]``.
        groups: the shot groups of the same classes.

    Returns:
        K, or None where every class is many-shot.
    """
    rest = sizes[~groups.many]
    return int(rest.max()) + 1 if rest.size else None


def _bounded(sizes: NDArray[np.int64], bounds: GroupsSpec) -> Groups:
    many, few = sizes > bounds.many, sizes < bounds.few
    rule = f"many: more than {bounds.many} images, few: fewer than {bounds.few}"
    return Groups(many=many, medium=~many & ~few, few=few, rule=rule)


def _thirds(sizes: NDArray[np.int64]) -> Groups:
    falling = np.sort(sizes)[::-1]
    third = max(round(len(sizes) / 3), 1)
    at_least, at_most = falling[third - 1], falling[-third]
    few = (sizes <= at_most) & (sizes < falling[0])
    many = (sizes >= at_least) & ~few
    rule = f"thirds by class size: many: at least {at_least} images, few: at most {at_most}"
    return Groups(many=many, medium=~many & ~few, few=few, rule=rule)


def floor(value: float) -> int:
    """Round down a product that, if it should be whole, may be off by its last binary digits."""
    return math.floor(value * (1 + 1e-12))
