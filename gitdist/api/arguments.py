"""Checks what users pass from Python: settings, counts, devices, labels and images. A mistake is one line."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from gitdist.device import Compute
from gitdist.errors import SpecError, first_line
from gitdist.spec import unknown_name
from gitdist.spec.mistakes import find_mistakes

Images = Tensor | NDArray[Any]
Labels = Tensor | NDArray[Any] | Sequence[int]

_HALF_LEVEL = 0.5 / 255  # of a pixel value in 0..1: what rounding to 256 levels removes


def check_settings(function: str, kind: Any, /, **settings: Any) -> Any:
    """Return the settings as ``kind``, the part of a study that has the same fields and rules.

    Raises:
        SpecError: a setting breaks its rule; the message begins with ``function``.
    """
    values = {name: plain_number(value) for name, value in settings.items()}
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        raise SpecError(f"{function}: {find_mistakes(error, values)[0]}") from None


def check_names(function: str, what: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Check that all ``names`` are ``known``; raise SpecError for the first that is not, in alphabetical order."""
    known = list(known)
    if unknown := sorted(name for name in names if name not in known):
        raise SpecError(f"{function}: {unknown_name(what, unknown[0], known)}")


def plain_number(value: Any) -> Any:
    """Return Python's number for one of numpy; other values as they are."""
    return value.item() if isinstance(value, np.generic) else value


def check_count(function: str, name: str, value: int) -> None:
    """Check that ``value`` is a whole number of 1 or more; raise SpecError if it is not."""
    try:
        is_count = operator.index(value) >= 1
    except TypeError:
        is_count = False
    if not is_count:
        raise SpecError(f"{function}: {name} must be a whole number of at least 1, but it is {value!r}")


def choose_compute(function: str, device: str | torch.device | None) -> Compute:
    """Return where a generator of the user runs; raise SpecError if torch has no such device here."""
    try:
        if device is not None:
            torch.empty(0, device=device)
        return Compute.resolve(device=device)
    except (AssertionError, RuntimeError, TypeError) as error:  # torch without CUDA raises AssertionError
        raise SpecError(
            f"{function}: device must be one that torch has here, such as 'cpu', but it is {str(device)!r} "
            f"({first_line(error)})"
        ) from None


def read_array(function: str, name: str, values: Any) -> NDArray[Any]:
    """Return an array of a tensor, an array or lists; raise SpecError if it cannot become one."""
    try:
        return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:  # such as lists of different lengths
        raise SpecError(f"{function}: {name} must be an array, but cannot become one ({first_line(error)})") from error


def read_labels(function: str, name: str, labels: Labels) -> NDArray[np.int64]:
    """Return labels, or class sizes, as int64 ``[n]``.

    Raises:
        SpecError: they are no row of whole numbers from 0 up.
    """
    values = read_array(function, name, labels)
    if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer) or not len(values):
        found = f"they have the type {values.dtype} and the shape {list(values.shape)}"
        raise SpecError(f"{function}: {name} must be whole numbers in one dimension, at least one, but {found}")
    if values.min() < 0:
        raise SpecError(f"{function}: {name} must be 0 or more, but one is {values.min()}")
    return values.astype(np.int64)


def read_class_sizes(function: str, class_sizes: Labels) -> NDArray[np.int64]:
    """Return the number of training images of each class, int64 ``[C]``.

    Raises:
        SpecError: as ``read_labels``, or no class has an image.
    """
    sizes = read_labels(function, "class_sizes", class_sizes)
    if not sizes.any():
        raise SpecError(f"{function}: class_sizes must have a class with images, but all {len(sizes)} are 0")
    return sizes


def check_classes(function: str, labels: NDArray[np.int64], num_classes: int) -> None:
    """Check that labels int64 ``[n]`` are below ``num_classes``; raise SpecError if one is not."""
    if len(labels) and labels.max() >= num_classes:
        raise SpecError(f"{function}: labels must be below {num_classes}, the classes, but one is {labels.max()}")


def read_images(function: str, images: Images) -> Tensor:
    """Return images as a tensor ``[N, C, H, W]``, a copy of an array; raise SpecError if their shape is another."""
    read = images if isinstance(images, Tensor) else read_array(function, "images", images)
    if read.ndim != 4:
        raise SpecError(f"{function}: images must have the shape [N, C, H, W], but they have {list(read.shape)}")
    if isinstance(read, Tensor):
        return read
    if read.dtype.kind not in "biuf":
        raise SpecError(f"{function}: images must be uint8 or float, but they are {read.dtype}")
    return torch.from_numpy(np.array(read, order="C"))


def to_pixels(function: str, images: Tensor) -> Tensor:
    """Return images as uint8 on their device; those in 0..1 are rounded to the nearest of 256 levels.

    Raises:
        SpecError: they have another type or range.
    """
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise SpecError(f"{function}: images must be uint8 or float, but they are {type_name(images)}")
    if images.numel():
        lowest, highest = (float(value) for value in images.detach().aminmax())
        if not (lowest >= -_HALF_LEVEL and highest <= 1 + _HALF_LEVEL):
            raise SpecError(
                f"{function}: float images must have pixels in 0..1, but these are in {lowest:g}..{highest:g}; "
                "divide by 255, or pass them before their normalisation"
            )
    return images.detach().float().mul(255).round_().clamp_(0, 255).to(torch.uint8)


def like_images(pixels: Tensor, images: Tensor) -> Tensor:
    """Return uint8 pixels in the type and on the device of ``images``: as float they are in 0..1."""
    pixels = pixels.to(images.device)
    return pixels if images.dtype == torch.uint8 else pixels.float().div_(255).to(images.dtype)


def type_name(images: Tensor) -> str:
    """Return the type of a tensor for messages: ``float32``."""
    return str(images.dtype).removeprefix("torch.")
