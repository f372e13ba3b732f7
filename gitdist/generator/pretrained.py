"""MUNIT weights in a file of their own, with the settings that shape the networks in the file's header.

FILE.safetensors: the auto-encoder's weights, float32; header {"gitdist": {"format": 1, "dim": 64, ..., "checksum"}}

The format itself has no checksums, so the header has one of all weights; files of earlier versions lack it.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from gitdist.device import Compute
from gitdist.disk import write_atomic
from gitdist.errors import SpecError, first_line
from gitdist.generator.finite import non_finite
from gitdist.generator.munit import AutoEncoder
from gitdist.generator.munit_generator import MunitGenerator
from gitdist.spec import MunitSpec
from gitdist.spec.base import Positive, Spec

_HEADER, _CHECKSUM = "gitdist", "checksum"


class Architecture(Spec):
    """What determines the shapes of an auto-encoder's weights; the fields are those of ``MunitSpec``."""

    format: Literal[1] = 1
    image_channels: Positive
    dim: Positive
    mlp_dim: Positive
    style_dim: Positive
    num_downsample: Annotated[int, Field(ge=0)]
    num_res: Positive

    def told(self) -> str:
        """Return the fields for reading."""
        return ", ".join(f"{name} {value}" for name, value in self.model_dump(exclude={"format"}).items())

    def auto_encoder(self) -> AutoEncoder:
        """Return an auto-encoder of these shapes with uninitialised weights."""
        fields = self.model_dump(exclude={"format", "image_channels"})
        return AutoEncoder(MunitSpec(**fields), self.image_channels)

    def shapes(self) -> dict[str, torch.Size]:
        """Return the shape of each of the auto-encoder's weights, which take no memory here."""
        with torch.device("meta"):
            return {name: weight.shape for name, weight in self.auto_encoder().state_dict().items()}


def save_pretrained(path: Path, architecture: Architecture, weights: dict[str, Tensor]) -> None:
    """Write weights, by the names of ``AutoEncoder``, and their architecture.

    Raises:
        DiskError: the disk does not take the file.
        OSError: the place cannot be written to.
    """
    contiguous = {name: weight.contiguous() for name, weight in weights.items()}
    header = architecture.model_dump() | {_CHECKSUM: _checksum(contiguous)}
    write_atomic(path, save(contiguous, {_HEADER: json.dumps(header, separators=(",", ":"))}))


def read_pretrained(path: Path, image_shape: tuple[int, int, int]) -> tuple[Architecture, dict[str, Tensor]]:
    """Return architecture and weights of the generator in a file, the weights by the names of ``AutoEncoder``.

    Args:
        path: what ``save_pretrained`` wrote.
        image_shape: ``(C, H, W)`` of the images it shall draw.

    Raises:
        SpecError: the file cannot be read, is damaged or is another one, a weight is not finite, or it was trained on
            images of another form.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            checksum = header.pop(_CHECKSUM, None)
            architecture = Architecture(**header)
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: weight.shape for name, weight in weights.items()}
        if strange := {name for name, _ in shapes.items() ^ architecture.shapes().items()}:
            raise ValueError(f"{min(strange)} is not as in an auto-encoder of {architecture.told()}")
        if checksum not in (None, _checksum(weights)):
            raise ValueError("it is damaged: the checksum of its weights is wrong")
        if broken := non_finite(weights):
            raise ValueError(f"{broken} holds NaN or infinite values")
    except Exception as error:  # a file of another make raises whatever its bytes happen to ask for
        raise SpecError(
            f"generator.path must name a file that `gitdist generator import` wrote, but {path} is not one "
            f"({type(error).__name__}: {first_line(error)}); import the checkpoint anew"
        ) from error
    _check_fit(architecture, image_shape)
    return architecture, weights


def load_pretrained(
    path: Path, image_shape: tuple[int, int, int], compute: Compute, compiled_batch: int | None = None
) -> MunitGenerator:
    """Return the generator in a file.

    Args:
        path: what ``save_pretrained`` wrote.
        image_shape: ``(C, H, W)`` of the images it shall draw.
        compute: device and precision of drawing.
        compiled_batch: as of ``MunitGenerator``.

    Raises:
        SpecError: as ``read_pretrained``.
    """
    architecture, weights = read_pretrained(path, image_shape)
    auto_encoder = architecture.auto_encoder()
    auto_encoder.load_state_dict(weights)
    return MunitGenerator(auto_encoder, architecture.style_dim, compute, compiled_batch)


def _checksum(weights: Mapping[str, Tensor]) -> str:
    """Return the hash of names, types, shapes and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {list(weight.shape)}".encode())
        digest.update(weight.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_fit(architecture: Architecture, image_shape: tuple[int, int, int]) -> None:
    channels, height, width = image_shape
    if channels != architecture.image_channels:
        raise SpecError(
            f"generator.path holds a generator of images with {architecture.image_channels} channel(s), but the data "
            f"set's have {channels}; take one that was trained on such images"
        )
    multiple = 2**architecture.num_downsample
    if height % multiple or width % multiple:
        raise SpecError(
            f"generator.path holds a generator of images whose sides are multiples of {multiple}, but the data set's "
            f"are {height}x{width}; resize the images"
        )
