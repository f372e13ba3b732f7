"""Generators of other packages: ``generator: {kind: plugin, target: "package.module:attribute", options: {...}}``.

    attribute(context, **options) -> Generator                             a class or a function
    attribute.version                                                      optional, a text or a whole number
    attribute.train(dataset, folder, report, compute, **options)           optional; writes files into ``folder``
        report(step, total_steps, {"name of a loss": value})               which ``context.artefact`` is later

``version`` is to change whenever the same options come to mean other draws: target, options and version name what is
kept of a plugin. Its module must be importable on every node of the cluster.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.errors import GitdistError, SpecError, StreamError
from gitdist.generator.base import Generator
from gitdist.plugins import describe_raised, load_attribute
from gitdist.spec import PluginSpec

GROUP = "gitdist.generators"

Report = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class GeneratorContext:
    """What a plugin is told of where it draws.

    Attributes:
        image_shape: ``(C, H, W)`` of every image.
        class_names: of the data set, in the order of its labels.
        nuisance: the data set's; ``none`` = not known.
        compute: device and precision to draw in.
        artefact: the folder that ``train`` filled, read-only; None where the plugin does not train.
    """

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    nuisance: str
    compute: Compute
    artefact: Path | None


class Plugin:
    """The attribute that a spec names, with its options."""

    def __init__(self, spec: PluginSpec) -> None:
        """Import the attribute.

        Raises:
            SpecError: it cannot be imported or called, or its version is neither a text nor a whole number.
        """
        self._spec = spec
        self._attribute = load_attribute(spec.target, GROUP, "generator.target")
        if not callable(self._attribute):
            raise self._broken("must be a class or a function", f"it is of type {type(self._attribute).__name__}")
        version = getattr(self._attribute, "version", None)
        if version is not None and not isinstance(version, str | int):
            raise self._broken("must have a version that is a text or a whole number", f"it is {version!r}")
        self._version = version

    @property
    def trains(self) -> bool:
        """Whether it is trained on the data set before it draws."""
        return callable(getattr(self._attribute, "train", None))

    @property
    def settings(self) -> dict[str, object]:
        """All that determines what it does on given images, as JSON values."""
        return {"target": self._spec.target, "options": self._spec.options, "version": self._version}

    def train(self, dataset: Dataset, folder: Path, report: Report, compute: Compute) -> None:
        """Let it fill ``folder``.

        Raises:
            SpecError: its training raised.
        """
        try:
            self._attribute.train(dataset, folder, report, compute, **self._spec.options)
        except GitdistError:
            raise
        except Exception as error:
            raise self._broken("must train", f"it raised {describe_raised(error)}") from error

    def build(self, context: GeneratorContext) -> Generator:
        """Return its generator, whose results are checked.

        Raises:
            SpecError: building it raised, or gave something else than a generator.
        """
        try:
            generator = self._attribute(context, **self._spec.options)
        except GitdistError:
            raise
        except Exception as error:
            raise self._broken("must build a generator", f"it raised {describe_raised(error)}") from error
        if not isinstance(generator, Generator):
            kind = type(generator).__name__
            raise self._broken("must return a gitdist.generator.base.Generator", f"it returned one of type {kind}")
        if not isinstance(getattr(generator, "device", None), torch.device):
            raise self._broken("must return a generator whose `device` is a torch.device", "it has none")
        return CheckedGenerator(generator, self._spec.target, context.image_shape)

    def _broken(self, rule: str, found: str) -> SpecError:
        target = self._spec.target
        return SpecError(f"generator.target '{target}' {rule}, but {found}; mend it, or generator.options")


class CheckedGenerator(Generator):
    """A generator whose codes and draws are refused where they are not of the form that ``Generator`` promises."""

    def __init__(self, generator: Generator, name: str, image_shape: tuple[int, int, int]) -> None:
        """Check what ``generator`` returns; ``name`` is what to call it in messages."""
        self.device = generator.device
        self._generator, self._name, self._image_shape = generator, name, image_shape

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        """Return the codes of images.

        Raises:
            StreamError: it raised, or these are no codes.
        """
        codes = self._call("encode", images, clean)
        found = f"encode returned {_described(codes)}"
        if (
            not isinstance(codes, Tensor)
            or codes.shape[:1] != images.shape[:1]
            or codes.device.type != self.device.type
        ):
            raise self._broken(f"must encode {len(images)} images as a tensor of as many rows on {self.device}", found)
        return codes

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return one draw for each code.

        Raises:
            StreamError: it raised, or these are no images.
        """
        drawn = self._call("draw", codes, rng)
        shape = (len(codes), *self._image_shape)
        found = f"draw returned {_described(drawn)}"
        if not isinstance(drawn, Tensor) or drawn.dtype != torch.uint8 or drawn.device.type != "cpu":
            raise self._broken("must draw uint8 tensors in the processor's memory", found)
        if drawn.shape != shape:
            raise self._broken(f"must draw images of shape {list(shape)}", found)
        return drawn

    def _call(self, verb: str, *arguments: Any) -> Any:
        try:
            return getattr(self._generator, verb)(*arguments)
        except Exception as error:
            raise self._broken(f"must {verb}", f"it raised {describe_raised(error)}") from error

    def _broken(self, rule: str, found: str) -> StreamError:
        return StreamError(f"generator.target '{self._name}' {rule}, but {found}; mend it")


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"something of type {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device}"
