"""Generators without a network: the true nuisance, no transformation, and RandAugment."""

import numpy as np
import torch
from torch import Tensor

from gitdist.data.nuisance import transform
from gitdist.data.randaugment import RandAugment, draw_operations
from gitdist.errors import SpecError
from gitdist.generator.base import Generator


class OracleGenerator(Generator):
    """Draws from the true T(.|x), applied to the image before the nuisance."""

    def __init__(self, nuisance: str) -> None:
        """Choose the data set's nuisance; raise SpecError if it is unknown, ``none``."""
        if nuisance == "none":
            rule = "generator.kind = oracle needs a known nuisance, but data.nuisance is 'none'"
            raise SpecError(f"{rule}; name a nuisance or choose another generator")
        self.device, self._nuisance = torch.device("cpu"), nuisance

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        """Return a copy of ``clean``, uint8 ``[N, C, H, W]``."""
        return clean.detach().to("cpu", copy=True)

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return a draw of the nuisance for each clean image, uint8 ``[N, C, H, W]``."""
        return transform(self._nuisance, codes, rng)


class IdentityGenerator(Generator):
    """Every draw is the data set's image itself."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        """Return a copy of ``images``, uint8 ``[N, C, H, W]``."""
        return images.detach().to("cpu", copy=True)

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return a copy of ``codes``."""
        return codes.clone()


class RandAugmentGenerator(IdentityGenerator):
    """Draws are the data set's image after random operations: a baseline that needs no training."""

    def __init__(self, ops: int, magnitude: int, image_shape: tuple[int, int, int]) -> None:
        """Build the tables of ``ops`` operations per image ``(C, H, W)`` at a magnitude of 0..30."""
        super().__init__()
        self._ops, self._augment = ops, RandAugment(magnitude, image_shape)

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return each image after its own operations, uint8 ``[N, C, H, W]``."""
        return self._augment(codes, draw_operations(len(codes), self._ops, rng))
