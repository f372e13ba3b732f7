"""Decodes the image files of a data set into arrays of one shape.

    header of each file -> ImageDecoder (grey or RGB, side) -> uint8 [N, C, side, side]

Images are turned upright by their EXIF orientation, put on black where they are transparent, resized with the shorter
side to ``data.image_size`` pixels, and cropped to the square in the middle. If any is stored in colour, all become RGB.

    what an image is                               outcome
    PNG, JPEG, BMP, PPM, PGM, WebP; .JPG, .PNG     read
    1 bit, grey, palette, RGB                      read; grey ones become RGB, with a note, if any image has colour
    CMYK                                           converted to RGB, with a note
    16 bits per channel                            the upper 8 bits are used, with a note
    transparent, also in a palette                 put on black, with a note
    turned by its EXIF orientation                 turned upright, with a note
    animated PNG or WebP                           its first frame is used, with a note
    several sizes or shapes, 1 pixel wide          resized and cropped, with a note
    GIF, TIFF, HEIC, AVIF, ... by name or content  refused
    empty, truncated, damaged, floating-point      refused
    a web page, a git-LFS pointer, other content   refused
    more than 179 million pixels, also resized     refused
    a pipe, a socket, a device, a broken link      refused
    without permission, or changed while read      refused
"""

import errno
import math
import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from gitdist import bounds
from gitdist.errors import DataError, first_line
from gitdist.input_file import check_memory, foreign_content, open_input
from gitdist.limits import usable_cpus

Result = TypeVar("Result")
Header = tuple[tuple[int, int], bool]  # width and height; whether it has colour

_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
_MULTIPLE, _SMALLEST, _LARGEST = 8, 16, 64  # of automatic sizes, pixels
_MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow refuses larger files
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


@dataclass(frozen=True, kw_only=True)
class ImageDecoder:
    """How all images of one data set are decoded."""

    mode: Literal["L", "RGB"]
    side: int  # pixels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of each decoded image."""
        return 3 if self.mode == "RGB" else 1, self.side, self.side

    def decode(
        self, files: Sequence[Path], where: Callable[[int], str] | None = None
    ) -> tuple[NDArray[np.uint8], Counter[str]]:
        """Return the images ``[N, C, H, W]``, and how many were changed in which way, for ``change_notes``.

        Above ``DECODED_BYTES`` the array is the map of a temporary file, which has no name and ends with the array.

        Args:
            files: some images of the data set.
            where: what names a file, by its index, such as the line of a list; for messages.

        Raises:
            DataError: a file cannot be read or decoded, or memory or temporary directory do not hold the images.
        """
        images = self._allocate(len(files))

        def decode(index: int, image: Image.Image) -> list[str]:
            images[index], changes = self._decode_one(image)
            return changes

        return images, Counter(change for changes in map_images(files, decode, where) for change in changes)

    def _allocate(self, count: int) -> NDArray[np.uint8]:
        shape = (count, *self.image_shape)
        num_bytes = math.prod(shape)
        what = f"{count:,} images of {self.side}x{self.side} pixels (data.image_size)"
        if num_bytes <= bounds.DECODED_BYTES:
            check_memory(num_bytes, what)
            return np.empty(shape, dtype=np.uint8)
        folder = tempfile.gettempdir()
        try:
            if shutil.disk_usage(folder).free < num_bytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with tempfile.TemporaryFile(dir=folder) as file:
                os.posix_fallocate(file.fileno(), 0, num_bytes)  # on a full disk, writing into the map ends the process
                return np.memmap(file, np.uint8, mode="r+", shape=shape)
        except OSError as error:
            raise DataError(
                f"{what} must fit into the temporary directory, but {folder} does not take {num_bytes / 1e9:,.1f} GB "
                f"({error.strerror}); free space there, or set TMPDIR to another directory"
            ) from error

    def _decode_one(self, image: Image.Image) -> tuple[NDArray[np.uint8], list[str]]:
        changes = {
            "CMYK images made RGB": image.mode == "CMYK",
            "animated images, of which the first frame is used": _is_animated(image),
            "images of 16 bits per channel, of which the upper 8 are used": _has_16_bits(image),
        }
        upright = _turn_upright(image)
        changes |= {
            "grey images made RGB": self.mode == "RGB" and not _has_colour(image),
            "images with transparent parts put on black": image.has_transparency_data,
            "images turned upright by their EXIF orientation": upright is not image,
        }
        opaque = _put_on_black(_to_eight_bits(upright)).convert(self.mode)
        pixels = np.atleast_3d(np.asarray(_centre_square(opaque, self.side))).transpose(2, 0, 1)
        return pixels, [change for change, applied in changes.items() if applied]


def fit_decoder(
    files: Sequence[Path], image_size: int | None, where: Callable[[int], str] | None = None
) -> tuple[ImageDecoder, list[str]]:
    """Return the decoder of a data set, from the headers of its files, and a note if it resizes.

    Args:
        files: all images of the data set.
        image_size: side in pixels; None = the median shorter side, at most 64, rounded down to a multiple of 8, at
            least 16.
        where: see ``ImageDecoder.decode``.

    Raises:
        DataError: a file cannot be read, or is no image.
    """
    headers = map_images(files, lambda _, image: (image.size, _has_colour(image)), where)
    decoder = ImageDecoder(
        mode="RGB" if any(colour for _, colour in headers) else "L",
        side=image_size or _automatic_side([size for size, _ in headers]),
    )
    return decoder, _size_notes(headers, decoder.side)


def shorter_sides(files: Sequence[Path]) -> tuple[int, int, int]:
    """Return the smallest, the median and the largest shorter side of images in pixels, from their headers.

    Raises:
        DataError: a file cannot be read, or is no image.
    """
    sides = map_images(files, lambda _, image: min(image.size))
    return min(sides), int(np.median(sides)), max(sides)


def change_notes(counts: Mapping[str, int]) -> list[str]:
    """Return one note per kind of change that ``ImageDecoder.decode`` counted."""
    return [f"{change}: {count:,}" for change, count in sorted(counts.items())]


def decode_images(
    files: Sequence[Path], image_size: int | None, where: Callable[[int], str] | None = None
) -> tuple[NDArray[np.uint8], list[str]]:
    """Return all images of a data set, ``[N, C, H, W]``, and notes on what was done to them.

    Arguments and errors are those of ``fit_decoder`` and ``ImageDecoder.decode``.
    """
    decoder, notes = fit_decoder(files, image_size, where)
    images, counts = decoder.decode(files, where)
    return images, notes + change_notes(counts)


def map_images(
    files: Sequence[Path], work: Callable[[int, Image.Image], Result], where: Callable[[int], str] | None = None
) -> list[Result]:
    """Return ``work(index, image)`` of each image file in order, computed on all cores.

    ``where(index)`` is what names a file, such as the line of a list.

    Raises:
        DataError: files cannot be read; the message names the first and counts the others.
    """

    def attempt(index: int) -> Result | Exception:
        try:
            with open_input(files[index]) as stream, _open_image(stream) as image:
                return work(index, image)
        except Exception as error:  # a damaged image can raise anything
            return error

    Image.init()  # not thread-safe
    # Pillow warns of what it can read.
    with warnings.catch_warnings(action="ignore"), ThreadPoolExecutor(min(32, usable_cpus() + 4)) as pool:
        outcomes = list(pool.map(attempt, range(len(files))))
    failed = [(index, outcome) for index, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
    if failed:
        index, error = failed[0]
        start = f"{where(index)}: " if where else ""
        if isinstance(error, DataError):
            others = f" (and {len(failed) - 1} more images cannot be read)" if failed[1:] else ""
            raise DataError(f"{start}{error}{others}") from error
        others = f", and {len(failed) - 1} more are not" if failed[1:] else ""
        raise DataError(
            f"{start}every image must be readable, but {files[index]} is not ({first_line(error)}){others}; fix or "
            "remove them"
        )
    return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]


def _open_image(stream: BinaryIO) -> Image.Image:
    try:
        return Image.open(stream, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise ValueError(foreign_content(stream) or f"it is none of {', '.join(_FORMATS)}") from error


def _automatic_side(sizes: Sequence[tuple[int, int]]) -> int:
    median = int(np.median([min(size) for size in sizes]))
    return max(min(median, _LARGEST) // _MULTIPLE * _MULTIPLE, _SMALLEST)


def _size_notes(headers: Sequence[Header], side: int) -> list[str]:
    sizes = Counter(size for size, _ in headers)
    if sizes.keys() == {(side, side)}:
        return []
    (width, height), count = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    found = f"{width}x{height}"
    if len(sizes) > 1:
        found = f"{len(sizes):,} sizes, {found} in {count:,} of {len(headers):,}"
    return [f"images of {found} (width x height) resized to {side}x{side}: shorter side, then the square in the middle"]


def _has_colour(image: Image.Image) -> bool:
    """Whether an image is stored in colour; a palette is colour unless all of its entries are grey."""
    if image.mode in ("P", "PA"):
        palette = np.asarray(image.getpalette(), dtype=np.int64).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return image.mode not in ("1", "L", "LA", "La", "F") and not image.mode.startswith("I")


def _is_animated(image: Image.Image) -> bool:
    return image.format in ("PNG", "WEBP") and bool(getattr(image, "is_animated", False))


def _has_16_bits(image: Image.Image) -> bool:
    """Whether the file of an image that is not loaded yet has 16 bits per channel."""
    if not isinstance(image, ImageFile) or image.format not in ("PNG", "PPM"):
        return False
    modes = [tile.args if isinstance(tile.args, tuple) else (tile.args,) for tile in image.tile]
    return any("16" in str(mode) or any(largest > 255 for largest in rest) for mode, *rest in modes)


def _turn_upright(image: Image.Image) -> Image.Image:
    """Return an image turned by its EXIF orientation, or the image itself if it is upright.

    ``ImageOps.exif_transpose`` also rewrites all other tags, and fails if one of them has an unexpected type.
    """
    image.load()  # a PNG may have its tags behind the pixels
    method = _TO_UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    return image if method is None else image.transpose(method)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return an image with 8 bits per channel: the upper 8 of 16 bits."""
    if image.mode == "F":
        raise ValueError("it has floating-point pixels")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))


def _put_on_black(image: Image.Image) -> Image.Image:
    """Return an image with its transparent parts black, the level that the nuisances take for background."""
    if not image.has_transparency_data:
        return image
    pixels = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, "black"), pixels).convert("RGB")


def _centre_square(image: Image.Image, side: int) -> Image.Image:
    """Return the middle of an image whose shorter side is resized to ``side`` pixels, bilinear with antialiasing."""
    shorter = min(image.size)
    width, height = (max(round(length * side / shorter), side) for length in image.size)
    if width * height > _MAX_PIXELS:
        raise ValueError(f"resized to {side} pixels on its shorter side, it would have {width}x{height}")
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return resized.crop((left, top, left + side, top + side))
