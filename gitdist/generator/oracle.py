"""Generators without a network: the true nuisance, and none at all."""

import numpy as np
import torch
from torch import Tensor

from gitdist.data.nuisance import transform
from gitdist.errors import SpecError
from gitdist.generator.base import Generator


class OracleGenerator(Generator):
    """Draws from the true T(.|x), applied to the image as it was before the data set was built."""

    def __init__(self, nuisance: str) -> None:
        """Choose the nuisance.

        Args:
            nuisance: the data set's.

        Raises:
            SpecError: the data set has none, so the truth is not known.
        """
        if nuisance == "none":
            raise SpecError(
                "generator.kind = oracle needs a data set whose nuisance is known, but data.nuisance is 'none'; "
                "name a nuisance or choose generator.kind = munit or identity"
            )
        self.device, self._nuisance = torch.device("cpu"), nuisance

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        """Return a copy of ``clean``, uint8 ``[N, C, H, W]``; ``images`` are not read."""
        return _copy(clean)

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return one fresh draw of the nuisance for each clean image, uint8 ``[N, C, H, W]``."""
        return transform(self._nuisance, codes, rng)


class IdentityGenerator(Generator):
    """Every draw is the data set's image itself."""

    def __init__(self) -> None:
        """Make the generator; it has no settings."""
        self.device = torch.device("cpu")

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        """Return a copy of ``images``, uint8 ``[N, C, H, W]``."""
        return _copy(images)

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return a copy of ``codes``; ``rng`` is not read."""
        return codes.clone()


def _copy(images: Tensor) -> Tensor:
    return images.detach().to("cpu", copy=True)
