"""Image files of any kind made into arrays of one kind, on all cores."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from gitdist.errors import DataError, first_line

Result = TypeVar("Result")

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
_ORIENTATION = 0x0112  # EXIF tag; 1 = upright
_TO_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def map_images(files: Sequence[Path], work: Callable[[int, Image.Image], Result]) -> list[Result]:
    """Return ``work(index, image)`` of each file in order; images are decoded when they are first used.

    Raises:
        DataError: files cannot be read; it names the first and says how many.
    """
    outcomes = attempt_images(files, work)
    broken = [(file, outcome) for file, outcome in zip(files, outcomes, strict=True) if isinstance(outcome, Exception)]
    if broken:
        file, error = broken[0]
        others = f", and {len(broken) - 1} more are not" if broken[1:] else ""
        raise DataError(
            f"every image must be readable, but {file} is not ({first_line(error)}){others}; mend or remove them"
        )
    return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]


def attempt_images(files: Sequence[Path], work: Callable[[int, Image.Image], Result]) -> list[Result | Exception]:
    """Return ``work(index, image)`` of each file in order, or why it cannot be read."""

    def attempt(index: int) -> Result | Exception:
        try:
            with Image.open(files[index], formats=FORMATS) as image:
                return work(index, image)
        except Exception as error:  # a damaged image raises whatever its bytes happen to ask for
            return error

    Image.init()  # its list of formats is not to be made by two threads at once
    with ThreadPoolExecutor() as pool:
        return list(pool.map(attempt, range(len(files))))


def upright(image: Image.Image) -> Image.Image:
    """Return an image turned as its EXIF orientation says; the image itself where there is nothing to turn.

    No other tag is read: ``ImageOps.exif_transpose`` writes all of them anew and fails where one is of another type
    than it should be.
    """
    image.load()  # a PNG may have its tags behind the pixels
    method = _TO_UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    return image if method is None else image.transpose(method)


def eight_bit(image: Image.Image) -> Image.Image:
    """Return an image with 8 bits a channel; of 16 bits the upper 8 stay."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))


def on_black(image: Image.Image) -> Image.Image:
    """Return an image with its transparent parts on black, the level that the nuisances take for background."""
    if not image.has_transparency_data:
        return image
    pixels = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, "black"), pixels).convert("RGB")


def has_colour(image: Image.Image) -> bool:
    """Tell whether an image is stored in colour; a palette is colour unless all of its entries are grey."""
    if image.mode in ("P", "PA"):
        palette = np.asarray(image.getpalette(), dtype=np.int64).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in ("1", "L", "LA", "La", "F") and not image.mode.startswith("I")


def centre_square(image: Image.Image, side: int) -> Image.Image:
    """Return the middle of an image whose shorter side is resized to ``side`` pixels, bilinear with antialiasing."""
    shorter = min(image.size)
    width, height = (max(round(length * side / shorter), side) for length in image.size)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return resized.crop((left, top, left + side, top + side))
