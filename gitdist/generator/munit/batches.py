"""Class-balanced batches and styles of MUNIT's training, each step's from its own named seeds.

rows -> flip -> resize to the generator's size -> RandAugment -> mixup with a second such batch -> -1..1
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gitdist.data.randaugment import RandAugment, draw_operations
from gitdist.device import Compute
from gitdist.generator.resizing import generated_shape, resize
from gitdist.seeds import numpy_rng
from gitdist.spec import MunitSpec

_SECOND_BATCH = 1  # last index in the seeds of a batch that another one is blended with


class BalancedBatches:
    """Batches in which every class is equally likely, and within a class every image.

    Pure: the batch of a step depends on the seed, the step and the domain only.
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], spec: MunitSpec, compute: Compute) -> None:
        """Sort the rows of images ``[N, C, H, W]`` by class."""
        self._images, self._spec, self._compute = images, spec, compute
        shape = generated_shape(spec.image_size, images.shape[1:])
        self._shape = None if shape == images.shape[1:] else shape
        magnitude = spec.randaugment_magnitude
        self._randaugment = RandAugment(magnitude, shape, compute.device) if spec.randaugment_ops else None
        self._rows = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels)
        self._sizes = sizes[sizes > 0]
        self._starts = np.cumsum(self._sizes) - self._sizes

    def images(self, step: int, domain: int) -> Tensor:
        """Return one batch ``[batch_size, C, H, W]`` in -1..1, channels_last, on the device."""
        images = self._draw(step, domain)
        if self._spec.mixup_alpha:
            images = self._mix(images, step, domain)
        return to_signed(images, self._compute)

    def styles(self, step: int, domain: int) -> Tensor:
        """Return styles from N(0, I): float32 ``[batch_size, style_dim]`` on the device."""
        rng = numpy_rng(self._spec.seed, "generator/styles", step, domain)
        return draw_styles(self._spec.batch_size, self._spec.style_dim, rng, self._compute.device)

    def _draw(self, *indices: int) -> Tensor:
        """Draw a batch, uint8 on the device, by the seeds with these indices."""
        size, seed = self._spec.batch_size, self._spec.seed
        rng = numpy_rng(seed, "generator/rows", *indices)
        classes = rng.integers(len(self._sizes), size=size)
        within = (rng.random(size) * self._sizes[classes]).astype(np.int64)
        batch = self._images[self._rows[self._starts[classes] + within]]
        if self._spec.flip:
            flipped = numpy_rng(seed, "generator/flips", *indices).random(size) < 0.5
            batch = np.where(flipped[:, None, None, None], batch[..., ::-1], batch)
        images = torch.from_numpy(batch).to(self._compute.device)
        if self._shape is not None:
            images = resize(images, self._shape)
        if self._randaugment is None:
            return images
        codes = draw_operations(size, self._spec.randaugment_ops, numpy_rng(seed, "generator/randaugment", *indices))
        return self._randaugment(images, codes)

    def _mix(self, images: Tensor, step: int, domain: int) -> Tensor:
        """Blend each image with one of a second batch (mixup, Zhang et al. 2018), rounded to whole grey levels."""
        alpha = self._spec.mixup_alpha
        shares = numpy_rng(self._spec.seed, "generator/mixup", step, domain).beta(alpha, alpha, (len(images), 1, 1, 1))
        others = self._draw(step, domain, _SECOND_BATCH)
        weights = torch.from_numpy(shares.astype(np.float32)).to(images.device)
        return torch.lerp(others.float(), images.float(), weights).round_().to(torch.uint8)


def draw_styles(num: int, style_dim: int, rng: np.random.Generator, device: torch.device) -> Tensor:
    """Return ``num`` styles from N(0, I): float32 ``[num, style_dim]``."""
    return torch.from_numpy(rng.standard_normal((num, style_dim), dtype=np.float32)).to(device)


def to_signed(images: Tensor, compute: Compute) -> Tensor:
    """Map uint8 images ``[N, C, H, W]`` to -1..1 on the device, in the type networks run in, channels_last."""
    signed = images.to(compute.device).float().div_(127.5).sub_(1)
    return signed.to(torch.bfloat16 if compute.bf16 else torch.float32, memory_format=torch.channels_last)


def to_uint8(images: Tensor) -> Tensor:
    """Map float images ``[N, C, H, W]`` in -1..1 to contiguous uint8 in the memory of the CPU."""
    levels = images.add(1).mul_(127.5).round_().clamp_(0, 255)
    return levels.to(torch.uint8, memory_format=torch.contiguous_format).cpu()
