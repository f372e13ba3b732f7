"""Random crop and flip of uint8 images, and normalisation. Whole batches, on the device.

The random choices of an epoch are drawn at once on the processor, so they are the same on every device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Where each sample of an epoch is cropped and whether it is mirrored.

    ``down`` and ``across`` int64 ``[N]`` are the corner of the crop in the padded image, 0..2 * padding; ``flip`` bool
    ``[N]``. None = not done.
    """

    padding: int = 0
    down: Tensor | None = None
    across: Tensor | None = None
    flip: Tensor | None = None

    def rows(self, start: int, stop: int) -> "Placement":
        """Return the placement of samples ``start`` to ``stop`` of the epoch."""
        parts = {name: getattr(self, name) for name in ("down", "across", "flip")}
        cut = {name: None if part is None else part[start:stop] for name, part in parts.items()}
        return Placement(padding=self.padding, **cut)


def draw_placement(
    count: int, padding: int, flip: bool, rng: np.random.Generator, device: torch.device | str = "cpu"
) -> Placement:
    """Draw crop corners and mirrorings, each uniform, for ``count`` samples.

    Args:
        count: samples of the epoch, N.
        padding: pixels of zeros around the image before the crop; 0 = no crop.
        flip: mirror with probability 1/2.
        rng: the only source of randomness.
        device: where the batches will be.
    """
    corners = rng.integers(0, 2 * padding + 1, (2, count)) if padding else None
    mirrored = rng.random(count) < 0.5 if flip else None
    return Placement(
        padding=padding,
        down=None if corners is None else torch.from_numpy(corners[0]).to(device),
        across=None if corners is None else torch.from_numpy(corners[1]).to(device),
        flip=None if mirrored is None else torch.from_numpy(mirrored).to(device),
    )


def place(images: Tensor, placement: Placement) -> Tensor:
    """Crop and mirror a batch, each sample by its own choice; what lies outside the image is 0.

    Args:
        images: uint8 ``[N, C, H, W]``.
        placement: the choices for these N samples.

    Returns:
        uint8 ``[N, C, H, W]``.
    """
    if placement.down is not None:
        height, width, around = images.shape[2], images.shape[3], placement.padding
        padded = functional.pad(images, (around, around, around, around))
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        samples = torch.arange(len(images), device=images.device)
        images = windows[samples, :, placement.down, placement.across]
    if placement.flip is not None:
        images = torch.where(placement.flip[:, None, None, None], images.flip(3), images)
    return images


class Normaliser:
    """Maps uint8 pixels to ``(x / 255 - mean) / std`` per channel, float32 in channels_last."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> None:
        """Keep the training images' mean and standard deviation (of values in 0..1), one number a channel each."""
        spread = torch.tensor(std, dtype=torch.float32, device=device).view(1, -1, 1, 1)
        self._offset = torch.tensor(mean, dtype=torch.float32, device=device).view(1, -1, 1, 1) / spread
        self._gain = 1 / (255 * spread)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the network's input for uint8 images ``[N, C, H, W]``."""
        pixels = images.to(torch.float32, memory_format=torch.channels_last)
        return pixels.mul_(self._gain).sub_(self._offset)
