"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719): random operations on each image, whole batches on the device.

    codes of the batch [N] -> images sorted by code -> one look-up per family of operations -> original order
        moved    each pixel from its source                      (a table per code)
        blended  by a pixel's value and its grey or blurred one  (a table per code)
        mapped   by a pixel's value                              (a curve per image and channel)

Operations and strengths are those of torchvision.transforms.v2.RandAugment with 31 magnitudes: nearest pixels, black
outside the image, results clipped to 0..255 and rounded down. The codes of an epoch and the tables are computed on the
CPU, so they are the same on every device.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_MOVED = ("shear-x", "shear-y", "translate-x", "translate-y", "rotate")
_BLENDED = ("color", "sharpness")
_SIGNED = (*_MOVED, *_BLENDED, "contrast", "brightness")
_UNSIGNED = ("posterize", "solarize", "autocontrast", "equalize", "identity")

CODES = (*((name, sign) for name in _SIGNED for sign in (1, -1)), *((name, 1) for name in _UNSIGNED))
"""Operation and sign of each code; the codes of a family are adjacent."""

_COLOR, _SHARPNESS, _CONTRAST, _IDENTITY = (
    CODES.index((name, 1)) for name in ("color", "sharpness", "contrast", "identity")
)
_NUM_MAGNITUDES = 31
_LARGEST_STRENGTHS = {
    **{"shear-x": 0.3, "shear-y": 0.3},  # pixels per pixel
    **{"translate-x": 150 / 331, "translate-y": 150 / 331},  # of width and of height
    "rotate": 30.0,  # degrees
    **{"color": 0.9, "sharpness": 0.9, "contrast": 0.9, "brightness": 0.9},  # 1 + this is the factor
}
_VALUES = torch.arange(256, dtype=torch.uint8)


def draw_operations(count: int, ops: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the operations of an epoch, each of the 14 with equal probability, and its sign if it has one.

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
        channels, height, width = image_shape
        moves = [_source_pixels(*code, magnitude, height, width) for code in CODES[:_COLOR]]
        blends = [_blend_table(*code, magnitude, channels) for code in CODES[_COLOR:_CONTRAST]]
        self._moves, self._blends = torch.stack(moves).to(device), torch.stack(blends).to(device)
        self._curves = [_curve_function(*code, magnitude, device) for code in CODES[_CONTRAST:_IDENTITY]]

    def __call__(self, images: Tensor, codes: NDArray[np.int64]) -> Tensor:
        """Return the images after their operations, uint8 ``[N, C, H, W]``.

        Args:
            images: uint8 ``[N, C, H, W]``; not modified, and returned as they are if there are 0 operations.
            codes: int64 ``[ops, N]`` of ``draw_operations``.
        """
        for step in codes:
            images = self._apply(images, step)
        return images

    def _apply(self, images: Tensor, codes: NDArray[np.int64]) -> Tensor:
        order = np.argsort(codes, kind="stable")
        counts = np.bincount(codes, minlength=len(CODES))
        families = np.add.reduceat(counts, [0, _COLOR, _SHARPNESS, _CONTRAST, _IDENTITY]).tolist()
        # Non-blocking: the host does not wait for the device to finish its queue.
        indices = torch.from_numpy(order).to(images.device, non_blocking=True)
        sorted_codes = torch.from_numpy(codes[order]).to(images.device, non_blocking=True)
        move, color, sharpness, _, _ = torch.split(sorted_codes, families)
        moved, colored, sharpened, mapped, unchanged = torch.split(images[indices], families)
        results = [
            self._move(moved, move),
            self._blend(colored, _grey(colored), color),
            self._blend(sharpened, _blurred(sharpened), sharpness),
            self._map_values(mapped, counts[_CONTRAST:_IDENTITY].tolist()),
            unchanged,
        ]
        return torch.empty_like(images).index_copy_(0, indices, torch.cat(results))

    def _move(self, images: Tensor, codes: Tensor) -> Tensor:
        pixels = functional.pad(images.flatten(2), (1, 0))
        sources = self._moves[codes][:, None].expand(-1, images.shape[1], -1)
        return pixels.gather(2, sources).view(images.shape)

    def _blend(self, images: Tensor, others: Tensor, codes: Tensor) -> Tensor:
        table = (codes - _COLOR).view(-1, 1, 1, 1)
        return self._blends.take((table * 256 + images) * 256 + others.long())

    def _map_values(self, images: Tensor, counts: list[int]) -> Tensor:
        parts = zip(self._curves, torch.split(images, counts), strict=True)
        curves = torch.cat([curve(part).expand(*part.shape[:2], -1) for curve, part in parts])
        return curves.gather(2, images.flatten(2).long()).view(images.shape)


def _strength(name: str, magnitude: int, extent: int = 1) -> float:
    """How far a signed operation goes: ``magnitude`` / 30 of its largest strength, times ``extent`` pixels."""
    return float(torch.linspace(0.0, _LARGEST_STRENGTHS[name] * extent, _NUM_MAGNITUDES)[magnitude])


def _source_pixels(name: str, sign: int, magnitude: int, height: int, width: int) -> Tensor:
    """The source of each pixel of a moved image, int64 ``[H * W]``: 1 + its index in the flat image, 0 = outside."""
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([across - (width - 1) / 2, down - (height - 1) / 2, torch.ones(height, width)], dim=2)
    half = torch.tensor([width / 2, height / 2])
    inverse = torch.tensor(_inverse_map(name, sign, magnitude, height, width))
    grid = points.view(1, -1, 3).bmm((inverse.T / half)[None]).view(1, height, width, 2)
    numbers = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    return functional.grid_sample(numbers, grid, mode="nearest", align_corners=False).flatten().long()


def _inverse_map(name: str, sign: int, magnitude: int, height: int, width: int) -> list[tuple[float, float, float]]:
    """The affine map from a pixel of the moved image to its source, both counted from the image's centre."""
    if name in ("translate-x", "translate-y"):
        down = name == "translate-y"
        pixels = -sign * int(_strength(name, magnitude, height if down else width))
        return [(1, 0, 0 if down else pixels), (0, 1, pixels if down else 0)]
    slope = sign * _strength(name, magnitude)
    if name == "shear-x":
        return [(1, slope, slope * height / 2), (0, 1, 0)]
    if name == "shear-y":
        return [(1, 0, 0), (slope, 1, slope * width / 2)]
    if name == "rotate":
        cosine, sine = math.cos(math.radians(slope)), math.sin(math.radians(slope))
        return [(cosine, -sine, 0), (sine, cosine, 0)]
    raise ValueError(f"no operation that moves pixels is called {name}")


def _blend_table(name: str, sign: int, magnitude: int, channels: int) -> Tensor:
    """A pixel's new value by its own and its grey (color) or blurred (sharpness) value, uint8 ``[256, 256]``."""
    own, other = _VALUES[:, None], _VALUES.float()
    factor = 1 + sign * _strength(name, magnitude)
    match name:  # torchvision rounds the two operations differently
        case "color":
            factor = 1.0 if channels == 1 else factor
            return _to_pixels(own.mul(factor).add(other, alpha=1 - factor))
        case "sharpness":
            return _to_pixels(own.float().add(other - own, alpha=1 - factor))
        case _:
            raise ValueError(f"no operation that blends images is called {name}")


def _curve_function(name: str, sign: int, magnitude: int, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """A function from N images to their curves (a new value for each old one), uint8 ``[N or 1, C or 1, 256]``."""
    match name:
        case "contrast":
            return partial(_contrast_curves, factor=1 + sign * _strength(name, magnitude))
        case "autocontrast":
            return _autocontrast_curves
        case "equalize":
            return _equalize_curves
        case "brightness":
            curve = _to_pixels(_VALUES.mul(1 + sign * _strength(name, magnitude)))
        case "posterize":
            bits = round(8 - 4 * magnitude / (_NUM_MAGNITUDES - 1))
            curve = _VALUES & ((0xFF << (8 - bits)) & 0xFF)
        case "solarize":
            threshold = 255 * float(torch.linspace(1.0, 0.0, _NUM_MAGNITUDES)[magnitude])
            curve = torch.where(_VALUES >= threshold, 255 - _VALUES, _VALUES)
        case _:
            raise ValueError(f"no operation that maps values is called {name}")
    curve = curve.to(device)[None, None]
    return lambda _: curve


def _contrast_curves(images: Tensor, factor: float) -> Tensor:
    """Move values away from the mean grey (``factor`` > 1) or towards it."""
    mean = _grey(images).mean((2, 3))
    values = _VALUES.to(images.device).mul(factor)
    return _to_pixels(values.expand(len(images), 1, -1).add(mean[:, :, None], alpha=1 - factor))


def _autocontrast_curves(images: Tensor) -> Tensor:
    """Map a channel's smallest value to 0 and its largest to 255."""
    low, high = images.flatten(2).float().aminmax(dim=2, keepdim=True)
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low) * (1 / 255))
    return _to_pixels((_VALUES.to(images.device) - torch.where(flat, 0.0, low)) / scale)


def _equalize_curves(images: Tensor) -> Tensor:
    """Even out a channel's histogram, as Pillow rounds it; no change if fewer than 255 pixels are below the largest."""
    pixels = images.flatten(2).long()
    histogram = pixels.new_zeros(*pixels.shape[:2], 256).scatter_add_(2, pixels, torch.ones_like(pixels))
    largest = pixels.amax(2, keepdim=True)
    step = (pixels.shape[2] - histogram.gather(2, largest)) // 255
    below = histogram.cumsum(2) - histogram
    evened = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, evened, _VALUES.to(images.device)).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """The luma of colour images, rounded down, and grey images as they are: float32 ``[N, 1, H, W]``."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def _blurred(images: Tensor) -> Tensor:
    """The mean of the 3x3 pixels around each, its own counted five times, uint8; the border is not changed."""
    result = images.clone()
    if min(images.shape[2:]) > 2:
        values = images.long()
        total = values.unfold(2, 3, 1).unfold(3, 3, 1).sum((4, 5)) + 4 * values[:, :, 1:-1, 1:-1]
        result[:, :, 1:-1, 1:-1] = (2 * total + 13) // 26  # a sum over 13 weights never lies halfway
    return result


def _to_pixels(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)
