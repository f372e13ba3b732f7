"""Class sizes of a long tail, and the many-, medium- and few-shot groups that follow from them. Pure functions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from gitdist.errors import SpecError
from gitdist.seeds import numpy_rng
from gitdist.spec import GroupsSpec, ProfileSpec

_AUTO = GroupsSpec()


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """Which classes are many-, medium- and few-shot: boolean masks ``[C]``; each class is in exactly one."""

    many: NDArray[np.bool_]
    medium: NDArray[np.bool_]
    few: NDArray[np.bool_]
    rule: str

    def as_dict(self) -> dict[str, NDArray[np.bool_]]:
        """Return the masks by name, the largest classes first; a mask may be empty."""
        return {"many": self.many, "medium": self.medium, "few": self.few}


def profile_sizes(profile: ProfileSpec, available: Sequence[int]) -> list[int]:
    """Return the profile's sizes, by rank for zipf and by class otherwise.

    zipf: ``max(floor(largest / k^exponent), smallest)`` for rank k = 1..C; power: the same, where classes are ranked
    by falling ``available``, ties by class (the rule that GTSRB-LT is named for, with exponent 1.8; Zhou et al. 2022);
    exponential: ``floor(largest * factor^(c / (C-1)))`` (Cui et al. 2019); step: ``largest`` for the first classes and
    ``floor(largest * factor)`` for the last ``minority`` share (Buda et al. 2018); none: all images, at most
    ``largest``. No class is smaller than 1. Except for none, a size may exceed ``available``, the images per class.
    """
    num_classes = len(available)
    largest = profile.largest or max(available)
    match profile.kind:
        case "none":
            return [min(largest, count) for count in available]
        case "zipf":
            return _power_law(profile, largest, num_classes)
        case "power":
            sizes = np.empty(num_classes, np.int64)
            sizes[np.argsort(-np.asarray(available), kind="stable")] = _power_law(profile, largest, num_classes)
            return [int(size) for size in sizes]
        case "exponential":
            steps = max(num_classes - 1, 1)
            return [max(floor(largest * profile.factor ** (c / steps)), 1) for c in range(num_classes)]
        case "step":
            num_small = floor(profile.minority * num_classes)
            small = max(floor(largest * profile.factor), 1)
            return [largest] * (num_classes - num_small) + [small] * num_small
        case unknown:
            assert_never(unknown)


def _power_law(profile: ProfileSpec, largest: int, num_classes: int) -> list[int]:
    return [max(floor(largest / k**profile.exponent), profile.smallest) for k in range(1, num_classes + 1)]


def class_sizes(profile: ProfileSpec, available: Sequence[int], version: int) -> list[int]:
    """Return the number of training images that the profile asks for, per class, ``[C]``.

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
        groups: the two sizes that separate the groups; ``"auto"`` takes 100 and 20 if then no group is empty, else
            thirds of the classes by size. In thirds, classes of one size stay together, in the smaller group.

    Raises:
        SpecError: the bounds cross.
    """
    array = np.asarray(sizes, dtype=np.int64)
    if groups != "auto":
        if groups.few > groups.many + 1:
            found = f"groups.few = {groups.few} and groups.many = {groups.many}"
            raise SpecError(f"groups.few must be at most groups.many + 1, but {found}; lower groups.few")
        return _bounded(array, groups)
    bounded = _bounded(array, _AUTO)
    return bounded if all(mask.any() for mask in bounded.as_dict().values()) else _thirds(array)


def suggested_threshold(sizes: NDArray[np.int64], groups: Groups) -> int | None:
    """Return a first class-size threshold K: 1 + the largest class that is not many-shot; None if all are many-shot.

    Many-shot classes are invariant already and would get worse by augmentation (Zhou et al. 2022).
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
