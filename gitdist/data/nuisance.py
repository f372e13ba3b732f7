"""The true nuisance transformations x' ~ T(.|x): rotation, background, dilation or erosion.

The parameters of all images are drawn first, so a result depends on the images and the generator's state alone, not on
chunks. A new nuisance is an entry of ``NUISANCES``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, pad
from torch.utils.dlpack import from_dlpack

from gitdist import bounds
from gitdist.bounds import rows_within
from gitdist.errors import SpecError

Images = TypeVar("Images", NDArray[np.uint8], Tensor)

_CHUNK = 2048  # images, fewer if they are large
_BACKGROUND_LEVELS = 100
_DILATED_SHARE = 0.6


@dataclass(frozen=True, kw_only=True)
class Nuisance:
    """A transformation in two steps: ``apply(images, draw(len(images), rng))``."""

    draw: Callable[[int, np.random.Generator], NDArray[Any]]  # the parameters of N images, N rows
    apply: Callable[[Tensor, Tensor], Tensor]  # transforms uint8 [N, C, H, W] by N rows of parameters
    statistic: str | None = None  # what varies, in words: the mean level of ``pixels``; None = no single number
    pixels: Callable[[NDArray[np.uint8]], NDArray[np.bool_]] = lambda clean: np.ones(clean.shape[1:], bool)  # [H, W]


def transform(nuisance: str, images: Images, rng: np.random.Generator) -> Images:
    """Return one fresh draw of the nuisance for each image, of the type and on the device of ``images``.

    rotation: uniform in [-180, 180) degrees about the centre, bicubic, 0 outside; background: pixels that are 0 in
    every channel become one integer of 0..99; dilation-erosion: with probability 0.6 dilation by a square of side
    2..4, else erosion by one of side 1..2. ``"none"`` returns the images themselves.

    Args:
        nuisance: ``none`` or one of ``NUISANCES``.
        images: uint8 ``[N, C, H, W]``.
        rng: the only source of randomness.

    Raises:
        SpecError: the nuisance is unknown.
    """
    if nuisance == "none":
        return images
    before = images if isinstance(images, Tensor) else from_dlpack(np.ascontiguousarray(images))
    parameters = draw_parameters(nuisance, len(images), rng).to(before.device)
    after = torch.empty_like(before, memory_format=torch.contiguous_format)
    step = min(_CHUNK, rows_within(bounds.CHUNK_BYTES, math.prod(images.shape[1:])))
    for start in range(0, len(images), step):
        chunk = slice(start, start + step)
        after[chunk] = apply_nuisance(nuisance, before[chunk], parameters[chunk])
    return after if isinstance(images, Tensor) else after.numpy()


def draw_parameters(nuisance: str, count: int, rng: np.random.Generator) -> Tensor:
    """Draw the parameters of ``count`` transformations, N rows on the CPU."""
    return torch.from_numpy(find_nuisance(nuisance).draw(count, rng))


def apply_nuisance(nuisance: str, images: Tensor, parameters: Tensor) -> Tensor:
    """Transform each image by its own parameters, without waiting for the device.

    Args:
        nuisance: one of ``NUISANCES``.
        images: uint8 ``[N, C, H, W]`` before the nuisance.
        parameters: of ``draw_parameters`` for these N images, on the device of ``images``.
    """
    return find_nuisance(nuisance).apply(images, parameters)


def find_nuisance(name: str) -> Nuisance:
    """Return the nuisance of a name; raise SpecError if it is unknown."""
    if name not in NUISANCES:
        raise SpecError(f"a nuisance must be one of {', '.join(['none', *NUISANCES])}, but it is '{name}'")
    return NUISANCES[name]


def _draw_rotations(count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw the cosine and sine of the angle of each image, ``[N, 2]``."""
    angles = np.deg2rad(rng.uniform(-180.0, 180.0, count))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _rotate(images: Tensor, rotations: Tensor) -> Tensor:
    """Rotate counter-clockwise, sampling the source at the inversely rotated pixel centres."""
    height, width = images.shape[-2:]
    cosine, sine = rotations[:, 0, None, None], rotations[:, 1, None, None]
    down = _from_centre(height, images.device)[:, None]
    across = _from_centre(width, images.device)
    # grid_sample counts in units of half the width and half the height.
    source_x = (cosine * across - sine * down) * (2 / width)
    source_y = (sine * across + cosine * down) * (2 / height)
    grid = torch.stack([source_x, source_y], dim=-1).to(torch.float32)
    rotated = grid_sample(images.to(torch.float32), grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return rotated.round_().clamp_(0, 255).to(torch.uint8)


def _from_centre(size: int, device: torch.device) -> Tensor:
    return torch.arange(size, dtype=torch.float64, device=device) - (size - 1) / 2


def _fill_background(images: Tensor, levels: Tensor) -> Tensor:
    empty = (images == 0).all(dim=1, keepdim=True)
    return torch.where(empty, levels.to(torch.uint8).view(-1, 1, 1, 1), images)


def _draw_sides(count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the side of the square of each image: positive dilates, negative erodes."""
    dilated = rng.random(count) < _DILATED_SHARE
    dilation, erosion = rng.integers(2, 5, count), rng.integers(1, 3, count)
    return np.where(dilated, dilation, -erosion)


def _dilate_or_erode(images: Tensor, sides: Tensor) -> Tensor:
    # All four are computed for every image: selecting the images of a side first would wait for the device.
    result, sides = images, sides.view(-1, 1, 1, 1)
    for side in (2, 3, 4):
        result = torch.where(sides == side, _dilate(images, side), result)
    return torch.where(sides == -2, 255 - _dilate(255 - images, 2), result)


def _dilate(images: Tensor, side: int) -> Tensor:
    """Return the maximum over a square whose origin is its middle, or right of and below it when ``side`` is even.

    Pixels outside the image do not count: 0 is the least a pixel can be.
    """
    height, width = images.shape[-2:]
    before, after = side // 2, side - 1 - side // 2
    padded = pad(images, (before, after, before, after))
    rows = padded[..., :height, :]
    for offset in range(1, side):
        rows = torch.maximum(rows, padded[..., offset : offset + height, :])
    largest = rows[..., :width]
    for offset in range(1, side):
        largest = torch.maximum(largest, rows[..., offset : offset + width])
    return largest


NUISANCES = {  # data.nuisance but "none"; a test compares the names with those that DataSpec allows
    "rotation": Nuisance(draw=_draw_rotations, apply=_rotate),
    "background": Nuisance(
        draw=lambda count, rng: rng.integers(0, _BACKGROUND_LEVELS, count),
        apply=_fill_background,
        statistic="background level",
        pixels=lambda clean: (clean == 0).all(0),
    ),
    "dilation-erosion": Nuisance(draw=_draw_sides, apply=_dilate_or_erode, statistic="ink (mean level)"),
}
