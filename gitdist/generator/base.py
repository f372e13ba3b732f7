"""The interface of all generators: encode an image once, then draw transformed versions of it from its code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # slow to import
    import torch
    from torch import Tensor


class Generator(ABC):
    """A conditional distribution x' ~ P(.|x) over images; what all draws of x share is computed once, by ``encode``.

    Both methods are pure: the same arguments (and the same state of ``rng``) give the same bytes. The caller owns
    the returned tensors. Not thread-safe.
    """

    device: torch.device
    """The device of the codes."""

    @abstractmethod
    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        """Return the codes of images, one row each, on ``device``.

        Args:
            images: the data set's images, uint8 ``[N, C, H, W]``, on any device.
            clean: the same images before the nuisance, uint8 ``[N, C, H, W]``; only a generator that knows the true
                nuisance reads them.
        """

    @abstractmethod
    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return one new draw for each code: uint8 ``[N, C, H, W]`` in the memory of the CPU.

        Args:
            codes: rows of what ``encode`` returned, ``[N, ...]``.
            rng: the only source of randomness.
        """


@dataclass(frozen=True, kw_only=True)
class TrainingStep:
    """Progress of a generator's training: steps done, steps in total, and the mean losses of the last few steps."""

    step: int
    total: int
    losses: dict[str, float]
    elapsed_s: float
