"""MUNIT weights in a file of their own, with the settings that shape the networks in the file's header.

FILE.safetensors: the auto-encoder's weights, float32; header {"gitdist": {"format": 1, "dim": 64, ...}}
"""

import json
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from gitdist.compute import Compute
from gitdist.disk import write_atomic
from gitdist.errors import SpecError, first_line
from gitdist.generator.munit import AutoEncoder
from gitdist.generator.munit_generator import MunitGenerator
from gitdist.spec import MunitSpec
from gitdist.spec.base import Positive, Spec

_HEADER = "gitdist"


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
        DiskTrouble: the disk does not take the file.
        OSError: the place cannot be written to.
    """
    contiguous = {name: weight.contiguous() for name, weight in weights.items()}
    write_atomic(path, save(contiguous, {_HEADER: architecture.model_dump_json()}))


def check_pretrained(path: Path, image_shape: tuple[int, int, int]) -> Architecture:
    """Return the architecture of the generator in a file, of which the header alone is read.

    Args:
        path: what ``save_pretrained`` wrote.
        image_shape: ``(C, H, W)`` of the images it shall draw.

    Raises:
        SpecError: the file cannot be read or is another one, or it was trained on images of another form.
    """
    try:
        with safe_open(path, framework="pt") as file:
            architecture = Architecture(**json.loads((file.metadata() or {})[_HEADER]))
            found = {name: torch.Size(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        expected = architecture.shapes()
        if strange := {name for name, _ in found.items() ^ expected.items()}:
            raise ValueError(f"{min(strange)} is not as in an auto-encoder of {architecture.told()}")
    except Exception as error:  # a file of another make raises whatever its bytes happen to ask for
        raise SpecError(
            f"generator.path must name a file that `gitdist generator import` wrote, but {path} is not one "
            f"({type(error).__name__}: {first_line(error)}); import the checkpoint anew"
        ) from error
    _check_fit(architecture, image_shape)
    return architecture


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
        SpecError: as ``check_pretrained``.
    """
    architecture = check_pretrained(path, image_shape)
    auto_encoder = architecture.auto_encoder()
    auto_encoder.load_state_dict(load_file(path))
    return MunitGenerator(auto_encoder, architecture.style_dim, compute, compiled_batch)


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
