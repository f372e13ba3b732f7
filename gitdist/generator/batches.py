"""Class-balanced batches and styles of a generator training, each step's from its own named seeds."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gitdist.compute import Compute
from gitdist.seeds import numpy_rng
from gitdist.spec import MunitSpec


class BalancedBatches:
    """Batches in which every class is equally likely, and within a class every image.

    Pure: what a step gets depends on the seed, the step and the domain only.
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], spec: MunitSpec, compute: Compute) -> None:
        """Sort the rows by class.

        Args:
            images: uint8 ``[N, C, H, W]``.
            labels: int64 ``[N]``.
            spec: batch size, style size, flips and seed.
            compute: device and type of the batches.
        """
        self._images, self._spec, self._compute = images, spec, compute
        self._rows = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels)
        self._sizes = sizes[sizes > 0]
        self._starts = np.cumsum(self._sizes) - self._sizes

    def images(self, step: int, domain: int) -> Tensor:
        """Return one batch ``[batch_size, C, H, W]`` in -1..1, channels_last, on the device."""
        rng = numpy_rng(self._spec.seed, "generator/rows", step, domain)
        classes = rng.integers(len(self._sizes), size=self._spec.batch_size)
        within = (rng.random(self._spec.batch_size) * self._sizes[classes]).astype(np.int64)
        batch = self._images[self._rows[self._starts[classes] + within]]
        if self._spec.flip:
            flipped = numpy_rng(self._spec.seed, "generator/flips", step, domain).random(len(batch)) < 0.5
            batch = np.where(flipped[:, None, None, None], batch[..., ::-1], batch)
        return to_signed(torch.from_numpy(batch), self._compute)

    def styles(self, step: int, domain: int) -> Tensor:
        """Return styles from N(0, I): float32 ``[batch_size, style_dim]`` on the device."""
        rng = numpy_rng(self._spec.seed, "generator/styles", step, domain)
        return draw_styles(self._spec.batch_size, self._spec.style_dim, rng, self._compute.device)


def draw_styles(num: int, style_dim: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    """Return ``num`` styles from N(0, I): float32 ``[num, style_dim]``."""
    return torch.from_numpy(rng.standard_normal((num, style_dim), dtype=np.float32)).to(device)


def to_signed(images: Tensor, compute: Compute) -> Tensor:
    """Map uint8 images ``[N, C, H, W]`` 0..255 to -1..1 on the device, in the type networks run in, channels_last."""
    signed = images.to(compute.device).float().div_(127.5).sub_(1)
    return signed.to(torch.bfloat16 if compute.bf16 else torch.float32, memory_format=torch.channels_last)


def to_uint8(images: Tensor) -> Tensor:
    """Map float images ``[N, C, H, W]`` in -1..1 to contiguous uint8 0..255 in the processor's memory."""
    levels = images.add(1).mul_(127.5).round_().clamp_(0, 255)
    return levels.to(torch.uint8, memory_format=torch.contiguous_format).cpu()
