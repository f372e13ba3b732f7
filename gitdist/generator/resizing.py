"""Generation at a lower resolution than the data set's: images are reduced before encoding, draws enlarged after.

images [N, C, H, W] --antialiased--> [N, C, h, w] --generator--> draws [N, C, h, w] --bilinear--> [N, C, H, W]
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gitdist.errors import SpecError
from gitdist.generator.base import Generator

Shape = tuple[int, int, int]


def generated_shape(image_size: int | None, image_shape: Shape) -> Shape:
    """Return the shape (C, h, w) of what a generator draws for images ``(C, H, W)``.

    Args:
        image_size: the longer side in pixels; the other one is in proportion. None = the images' own size.
        image_shape: of the data set's images.

    Raises:
        SpecError: the images are not larger than that.
    """
    channels, height, width = image_shape
    if image_size is None:
        return image_shape
    longer = max(height, width)
    if image_size >= longer:
        raise SpecError(
            f"generator.image_size must be below the images' side of {longer} pixels, but it is {image_size}; lower it "
            "or leave it out"
        )
    drawn_height, drawn_width = (max(1, round(side * image_size / longer)) for side in (height, width))
    return channels, drawn_height, drawn_width


def resize(images: Tensor, shape: Shape) -> Tensor:
    """Return uint8 images ``[N, C, H, W]`` at the height and width of ``shape``, rounded, on the same device.

    Bilinear; reduction is antialiased.
    """
    resized = F.interpolate(images.float(), shape[1:], mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8, memory_format=torch.contiguous_format)


class ResizedGenerator(Generator):
    """A generator of smaller images as one of the data set's size; codes are those of the smaller images."""

    def __init__(self, generator: Generator, drawn_shape: Shape, image_shape: Shape) -> None:
        """Wrap a generator of images ``drawn_shape`` for images ``image_shape``."""
        self.device = generator.device
        self._generator, self._drawn_shape, self._image_shape = generator, drawn_shape, image_shape

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        """Reduce the images and encode them."""
        return self._generator.encode(resize(images, self._drawn_shape), resize(clean, self._drawn_shape))

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Draw and enlarge: uint8 ``[N, C, H, W]`` of the data set's size."""
        return resize(self._generator.draw(codes, rng), self._image_shape)
