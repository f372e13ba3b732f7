"""The choice of the images of one class that are held out, group by group, and the order in which the others are used.

Images of one group (frames of one object, photos of one patient) are near copies of each other. A held-out image tests
a classifier only if no image of its group is trained on, so whole groups are held out.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Rows of one class, int64 ``[n]`` each: those held out, and the rest in the order in which it is to be used."""

    held_out: NDArray[np.int64]
    rest: NDArray[np.int64]


def hold_out(
    rows: NDArray[np.int64], groups: NDArray[np.int64] | None, count: int, rng: np.random.Generator
) -> HeldOut:
    """Choose at random which rows of a class are held out.

    Without groups any ``count`` rows are. With groups, whole groups are held out, in random order while they have at
    most ``count`` rows together. If even the smallest group has more, ``count`` of its rows are held out and its others
    are not used. If the class has only one group, no row is held out.

    Args:
        rows: of the class, int64 ``[n]``.
        groups: the group of each of these rows, int64 ``[n]``; None = each row is its own group.
        count: rows to hold out, less than n.
        rng: the source of randomness.
    """
    if groups is None:
        order = rng.permutation(rows)
        return HeldOut(held_out=order[len(order) - count :], rest=order[: len(order) - count])
    chosen = np.isin(groups, _choose_groups(groups, count, rng))
    held_out = interleave_groups(rows[chosen], groups[chosen], rng)[:count]
    return HeldOut(held_out=held_out, rest=interleave_groups(rows[~chosen], groups[~chosen], rng))


def interleave_groups(
    rows: NDArray[np.int64], groups: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the rows in a random order; every prefix of it has rows of as many groups as possible."""
    shuffled = rng.permutation(len(rows))
    of_group = groups[shuffled]
    rounds = np.empty(len(rows), np.int64)  # how many rows of the same group come before
    by_group = np.argsort(of_group, kind="stable")
    _, starts, sizes = np.unique(of_group[by_group], return_index=True, return_counts=True)
    rounds[by_group] = np.arange(len(rows)) - np.repeat(starts, sizes)
    return rows[shuffled[np.argsort(rounds, kind="stable")]]


def _choose_groups(groups: NDArray[np.int64], limit: int, rng: np.random.Generator) -> list[int]:
    names, sizes = np.unique(groups, return_counts=True)
    if len(names) < 2:
        return []
    order = rng.permutation(len(names))
    chosen, total = [], 0
    for index in order:
        if total + sizes[index] <= limit:
            chosen.append(int(names[index]))
            total += int(sizes[index])
    return chosen or [int(names[min(order, key=lambda index: sizes[index])])]
