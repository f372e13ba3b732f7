"""What every generator can do: encode an image once, then draw transformed versions of it from the code."""

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor


class Generator(ABC):
    """A conditional distribution x' ~ P(.|x) over images, split so that what all draws of x share is done once.

    Both methods are pure: the same arguments (and the same state of ``rng``) give the same bytes. The caller owns
    the returned tensors. Not safe for several threads at once.
    """

    device: torch.device
    """Where codes live."""

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
        """Return one fresh draw for each code: uint8 ``[N, C, H, W]`` in the processor's memory.

        Args:
            codes: rows of what ``encode`` returned, ``[N, ...]``.
            rng: the only source of randomness.
        """
