"""What RandAugment's operations do, as look-up tables: which pixel moves where and which value becomes which.

Operations and strengths are those of torchvision.transforms.v2.RandAugment with 31 magnitudes: nearest pixels, black
outside the image, results cut to 0..255 and rounded down. The tables are computed on the processor.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

NUM_MAGNITUDES = 31
_VALUES = torch.arange(256, dtype=torch.uint8)
_TOPS = {
    **{"shear-x": 0.3, "shear-y": 0.3},  # pixels a pixel
    **{"translate-x": 150 / 331, "translate-y": 150 / 331},  # of width and of height
    "rotate": 30.0,  # degrees
    **{"color": 0.9, "sharpness": 0.9, "contrast": 0.9, "brightness": 0.9},  # 1 + this is the factor
}


def strength(name: str, magnitude: int, extent: int = 1) -> float:
    """Return how far a signed operation goes: ``magnitude`` / 30 of its largest strength, times ``extent`` pixels."""
    return float(torch.linspace(0.0, _TOPS[name] * extent, NUM_MAGNITUDES)[magnitude])


def source_pixels(name: str, sign: int, magnitude: int, height: int, width: int) -> Tensor:
    """Return where each pixel of a moved image comes from.

    Args:
        name: ``shear-x``, ``shear-y``, ``translate-x``, ``translate-y`` or ``rotate``.
        sign: 1 or -1.
        magnitude: 0..30.
        height: of the image, pixels.
        width: of the image, pixels.

    Returns:
        int64 ``[height * width]``: 1 + the source's place in the flattened image, 0 = outside of it.
    """
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    points = torch.stack([across - (width - 1) / 2, down - (height - 1) / 2, torch.ones(height, width)], dim=2)
    half = torch.tensor([width / 2, height / 2])
    inverse = torch.tensor(_inverse_map(name, sign, magnitude, height, width))
    places = points.view(1, -1, 3).bmm((inverse.T / half)[None]).view(1, height, width, 2)
    numbers = torch.arange(1.0, height * width + 1).view(1, 1, height, width)
    return functional.grid_sample(numbers, places, mode="nearest", align_corners=False).flatten().long()


def blend_table(name: str, factor: float) -> Tensor:
    """Return a pixel's new value for each old value and the value beside it, uint8 ``[256, 256]``.

    Args:
        name: ``color``, beside the grey image, or ``sharpness``, beside the blurred one.
        factor: 0 = the value beside it, 1 = the old value, above 1 = further away from the value beside it.
    """
    own, beside = _VALUES[:, None], _VALUES.float()
    if name == "color":
        return _pixels(own.mul(factor).add(beside, alpha=1 - factor))
    return _pixels(own.float().add(beside - own, alpha=1 - factor))


def fixed_curve(name: str, sign: int, magnitude: int) -> Tensor:
    """Return the new value of each old one, the same for all images, uint8 ``[256]``.

    Args:
        name: ``brightness``, ``posterize`` or ``solarize``.
        sign: 1 or -1; -1 only for ``brightness``.
        magnitude: 0..30.
    """
    if name == "brightness":
        return _pixels(_VALUES.mul(1 + sign * strength(name, magnitude)))
    if name == "posterize":
        bits = round(8 - 4 * magnitude / (NUM_MAGNITUDES - 1))
        return _VALUES & ((0xFF << (8 - bits)) & 0xFF)
    threshold = 255 * float(torch.linspace(1.0, 0.0, NUM_MAGNITUDES)[magnitude])
    return torch.where(_VALUES >= threshold, 255 - _VALUES, _VALUES)


def contrast_curves(images: Tensor, factor: float) -> Tensor:
    """Return the curves that move values away from the mean grey (``factor`` > 1) or towards it.

    Args:
        images: uint8 ``[N, C, H, W]``.
        factor: 0 = all values become the mean, 1 = no change.

    Returns:
        uint8 ``[N, 1, 256]``.
    """
    mean = grey(images).mean((2, 3))
    values = _VALUES.to(images.device).mul(factor)
    return _pixels(values.expand(len(images), 1, -1).add(mean[:, :, None], alpha=1 - factor))


def stretching_curves(images: Tensor) -> Tensor:
    """Return the curves that map a channel's smallest value to 0 and its largest to 255, uint8 ``[N, C, 256]``."""
    low, high = images.flatten(2).float().aminmax(dim=2, keepdim=True)
    flat = low == high
    scale = torch.where(flat, 1.0, (high - low) * (1 / 255))
    return _pixels((_VALUES.to(images.device) - torch.where(flat, 0.0, low)) / scale)


def equalising_curves(images: Tensor) -> Tensor:
    """Return the curves that even out a channel's histogram, as Pillow rounds them, uint8 ``[N, C, 256]``.

    A channel stays as it is where the pixels below its largest value are fewer than 255.
    """
    pixels = images.flatten(2).long()
    histogram = pixels.new_zeros(*pixels.shape[:2], 256).scatter_add_(2, pixels, torch.ones_like(pixels))
    largest = pixels.amax(2, keepdim=True)
    step = (pixels.shape[2] - histogram.gather(2, largest)) // 255
    below = histogram.cumsum(2) - histogram
    evened = ((below + step // 2) // step.clamp(min=1)).clamp(max=255)
    return torch.where(step > 0, evened, _VALUES.to(images.device)).to(torch.uint8)


def grey(images: Tensor) -> Tensor:
    """Return the luma of colour images, rounded down, and grey images as they are: float32 ``[N, 1, H, W]``."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return red.mul(0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()


def blurred(images: Tensor) -> Tensor:
    """Return the mean of the 3x3 pixels around each, its own counted five times, uint8; the border is left as it is."""
    result = images.clone()
    if min(images.shape[2:]) > 2:
        values = images.long()
        total = values.unfold(2, 3, 1).unfold(3, 3, 1).sum((4, 5)) + 4 * values[:, :, 1:-1, 1:-1]
        result[:, :, 1:-1, 1:-1] = (2 * total + 13) // 26  # a sum over 13 weights never lies halfway
    return result


def _inverse_map(
    name: str, sign: int, magnitude: int, height: int, width: int
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return the affine map from a pixel of the moved image to its source, both counted from the image's centre."""
    if name.startswith("translate"):
        down = name == "translate-y"
        pixels = -sign * int(strength(name, magnitude, height if down else width))
        return (1, 0, 0 if down else pixels), (0, 1, pixels if down else 0)
    slope = sign * strength(name, magnitude)
    if name == "shear-x":
        return (1, slope, slope * height / 2), (0, 1, 0)
    if name == "shear-y":
        return (1, 0, 0), (slope, 1, slope * width / 2)
    cosine, sine = math.cos(math.radians(slope)), math.sin(math.radians(slope))
    return (cosine, -sine, 0), (sine, cosine, 0)


def _pixels(values: Tensor) -> Tensor:
    return values.clamp(0, 255).to(torch.uint8)
