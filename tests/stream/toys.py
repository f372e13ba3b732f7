"""A generator whose codes and draws depend on everything that must not vary between two makings of a block."""

import numpy as np
import torch
from torch import Tensor

from gitdist.data.dataset import Dataset
from gitdist.generator.base import Generator
from gitdist.stream.blocks import BlockMaker


class BatchSensitiveGenerator(Generator):
    """Codes hold the mean of the batch they were encoded in, draws the sum of their batch's codes."""

    device = torch.device("cpu")

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        return images.float() + images.float().mean()

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        noise = torch.from_numpy(rng.integers(0, 100, size=codes.shape))
        return ((codes + codes.mean() + noise) % 256).to(torch.uint8)


def batch_sensitive_maker(
    dataset: Dataset, seed: int = 0, block_size: int = 20, max_code_bytes: int | None = None
) -> BlockMaker:
    return BlockMaker(BatchSensitiveGenerator(), dataset.train, seed, block_size, max_code_bytes)
