"""RandAugment as a generator: the baseline for learned generators, since it needs no training."""

import numpy as np
import torch
from torch import Tensor

from gitdist.data.randaugment import RandAugment, draw_operations
from gitdist.generator.base import Generator


class RandAugmentGenerator(Generator):
    """Draws are the data set's image after random operations."""

    def __init__(self, ops: int, magnitude: int, image_shape: tuple[int, int, int]) -> None:
        """Build the tables of ``ops`` operations per image ``(C, H, W)`` at a magnitude of 0..30."""
        self.device, self._ops = torch.device("cpu"), ops
        self._augment = RandAugment(magnitude, image_shape)

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        """Return a copy of ``images``, uint8 ``[N, C, H, W]``."""
        return images.detach().to("cpu", copy=True)

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return each image after its own operations, uint8 ``[N, C, H, W]``."""
        return self._augment(codes, draw_operations(len(codes), self._ops, rng))
