"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719): random operations on each image, whole batches on the device.

    codes of the batch [N] -> images sorted by code -> one look-up for each family of operations -> order as given
        moved    each pixel from its source                      (a table for each code)
        blended  by a pixel's value and its grey or blurred one  (a table for each code)
        toned    by a pixel's value                              (a curve for each image and channel)

The codes of an epoch are drawn at once on the processor, so they are the same on every device.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gitdist.data import randaugment_tables as tables

_MOVED = ("shear-x", "shear-y", "translate-x", "translate-y", "rotate")
_BLENDED = ("color", "sharpness")
_SIGNED = (*_MOVED, *_BLENDED, "contrast", "brightness")
_UNSIGNED = ("posterize", "solarize", "autocontrast", "equalize", "identity")

CODES = (*((name, sign) for name in _SIGNED for sign in (1, -1)), *((name, 1) for name in _UNSIGNED))
"""Operation and sign of each code; those of a family stand side by side."""

_COLOR, _SHARPNESS, _CONTRAST, _IDENTITY = (
    CODES.index((name, 1)) for name in ("color", "sharpness", "contrast", "identity")
)


def draw_operations(count: int, ops: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the operations of an epoch, each of the 14 with equal probability, and its sign where it has one.

    Args:
        count: samples of the epoch, N.
        ops: operations on each sample, one after the other.
        rng: the only source of randomness.

    Returns:
        Codes, int64 ``[ops, N]``: indices into ``CODES``.
    """
    chosen = rng.integers(0, len(_SIGNED) + len(_UNSIGNED), (ops, count))
    negative = rng.random((ops, count)) < 0.5
    return np.where(chosen < len(_SIGNED), 2 * chosen + negative, chosen + len(_SIGNED))


class RandAugment:
    """Applies drawn operations, all at one magnitude, to batches of images of one shape."""

    def __init__(self, magnitude: int, image_shape: tuple[int, int, int], device: torch.device | str = "cpu") -> None:
        """Make the tables.

        Args:
            magnitude: 0..30.
            image_shape: channels (1 or 3), height and width.
            device: where the batches will be.
        """
        channels, height, width = image_shape
        moves = [tables.source_pixels(*code, magnitude, height, width) for code in CODES[:_COLOR]]
        blends = [_blend_table(*code, magnitude, channels) for code in CODES[_COLOR:_CONTRAST]]
        self._moves, self._blends = torch.stack(moves).to(device), torch.stack(blends).to(device)
        self._curves = [_curve_maker(*code, magnitude, device) for code in CODES[_CONTRAST:_IDENTITY]]

    def __call__(self, images: Tensor, codes: NDArray[np.int64]) -> Tensor:
        """Return the images after their operations.

        Args:
            images: uint8 ``[N, C, H, W]``; left as they are.
            codes: int64 ``[ops, N]`` of ``draw_operations``; of 0 operations the images themselves come back.

        Returns:
            uint8 ``[N, C, H, W]``.
        """
        for step in codes:
            images = self._apply(images, step)
        return images

    def _apply(self, images: Tensor, codes: NDArray[np.int64]) -> Tensor:
        order = np.argsort(codes, kind="stable")
        counts = np.bincount(codes, minlength=len(CODES))
        families = np.add.reduceat(counts, [0, _COLOR, _SHARPNESS, _CONTRAST, _IDENTITY]).tolist()
        # Non-blocking, so that the host need not wait for what the device still has to do.
        places = torch.from_numpy(order).to(images.device, non_blocking=True)
        sorted_codes = torch.from_numpy(codes[order]).to(images.device, non_blocking=True)
        move, color, sharpness, _, _ = torch.split(sorted_codes, families)
        moved, colored, sharpened, toned, same = torch.split(images[places], families)
        changed = [
            self._move(moved, move),
            self._blend(colored, tables.grey(colored), color),
            self._blend(sharpened, tables.blurred(sharpened), sharpness),
            self._tone(toned, counts[_CONTRAST:_IDENTITY].tolist()),
            same,
        ]
        return torch.empty_like(images).index_copy_(0, places, torch.cat(changed))

    def _move(self, images: Tensor, codes: Tensor) -> Tensor:
        pixels = functional.pad(images.flatten(2), (1, 0))
        sources = self._moves[codes][:, None].expand(-1, images.shape[1], -1)
        return pixels.gather(2, sources).view(images.shape)

    def _blend(self, images: Tensor, beside: Tensor, codes: Tensor) -> Tensor:
        table = (codes - _COLOR).view(-1, 1, 1, 1)
        return self._blends.take((table * 256 + images) * 256 + beside.long())

    def _tone(self, images: Tensor, counts: list[int]) -> Tensor:
        parts = zip(self._curves, torch.split(images, counts), strict=True)
        curves = torch.cat([make(part).expand(*part.shape[:2], -1) for make, part in parts])
        return curves.gather(2, images.flatten(2).long()).view(images.shape)


def _blend_table(name: str, sign: int, magnitude: int, channels: int) -> Tensor:
    colorless = name == "color" and channels == 1
    return tables.blend_table(name, 1.0 if colorless else 1 + sign * tables.strength(name, magnitude))


def _curve_maker(name: str, sign: int, magnitude: int, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """Return what gives the curves uint8 ``[N or 1, C or 1, 256]`` of N images."""
    if name == "contrast":
        return partial(tables.contrast_curves, factor=1 + sign * tables.strength(name, magnitude))
    if name == "autocontrast":
        return tables.stretching_curves
    if name == "equalize":
        return tables.equalising_curves
    curve = tables.fixed_curve(name, sign, magnitude).to(device)[None, None]
    return lambda _: curve
