"""Generators of other packages: ``generator: {kind: plugin, target: "package.module:attribute", options: {...}}``.

    attribute(context, **options) -> Generator                             a class or a function
    attribute.version                                                      optional, text or an integer
    attribute.train(dataset, folder, report, compute, **options)           optional; writes files into ``folder``,
        report(step, total_steps, {"name of a loss": value})               which ``context.artifact`` is later

Change ``version`` whenever the same options give other draws: target, options and version determine the name of a
plugin's artifacts. Its module must be importable on every node of the cluster.
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

_ENTRY_POINTS = "gitdist.generators"


@dataclass(frozen=True, kw_only=True)
class GeneratorContext:
    """The data set and the device that a plugin draws for."""

    image_shape: tuple[int, int, int]  # (C, H, W) of every image
    class_names: tuple[str, ...]  # in the order of the labels
    nuisance: str  # of the data set; "none" = unknown
    compute: Compute  # device and precision to draw in
    artifact: Path | None  # the folder that ``train`` filled, read-only; None if the plugin does not train

    @property
    def artefact(self) -> Path | None:
        """The name of ``artifact`` up to version 0.5."""
        return self.artifact


class Plugin:
    """The attribute that a spec names, with its options."""

    def __init__(self, spec: PluginSpec) -> None:
        """Import the attribute.

        Raises:
            SpecError: it cannot be imported or called, or its version is neither text nor an integer.
        """
        self._spec = spec
        self._attribute = load_attribute(spec.target, _ENTRY_POINTS, "generator.target")
        if not callable(self._attribute):
            raise self._error("must be a class or a function", f"it is of type {type(self._attribute).__name__}")
        self._version = getattr(self._attribute, "version", None)
        if self._version is not None and not isinstance(self._version, str | int):
            raise self._error("must have a version that is text or an integer", f"it is {self._version!r}")

    @property
    def trains(self) -> bool:
        """Whether it is trained on the data set before it draws."""
        return callable(getattr(self._attribute, "train", None))

    @property
    def settings(self) -> dict[str, object]:
        """Everything that determines its draws from given images, as JSON values."""
        return {"target": self._spec.target, "options": self._spec.options, "version": self._version}

    def train(
        self, dataset: Dataset, folder: Path, report: Callable[[int, int, Mapping[str, float]], None], compute: Compute
    ) -> None:
        """Train it into ``folder``; raise SpecError if its code raises."""
        self._call("must train", self._attribute.train, dataset, folder, report, compute)

    def build(self, context: GeneratorContext) -> Generator:
        """Return its generator, whose results are checked."""
        generator = self._call("must build a generator", self._attribute, context)
        if not isinstance(generator, Generator):
            kind = type(generator).__name__
            raise self._error("must return a gitdist.generator.base.Generator", f"it returned one of type {kind}")
        if not isinstance(getattr(generator, "device", None), torch.device):
            raise self._error("must return a generator whose `device` is a torch.device", "it has none")
        return _CheckedGenerator(generator, self._spec.target, context.image_shape)

    def _call(self, rule: str, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments, **self._spec.options)
        except GitdistError:
            raise
        except Exception as error:
            raise self._error(rule, f"it raised {describe_raised(error)}") from error

    def _error(self, rule: str, found: str) -> SpecError:
        return SpecError(f"generator.target '{self._spec.target}' {rule}, but {found}; fix it or generator.options")


class _CheckedGenerator(Generator):
    """A generator whose codes and draws must have the form that ``Generator`` promises."""

    def __init__(self, generator: Generator, target: str, image_shape: tuple[int, int, int]) -> None:
        self.device = generator.device
        self._generator, self._target, self._image_shape = generator, target, image_shape

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        codes = self._call("encode", images, clean)
        if (
            not isinstance(codes, Tensor)
            or codes.shape[:1] != images.shape[:1]
            or codes.device.type != self.device.type
        ):
            rule = f"must encode {len(images)} images as a tensor of as many rows on {self.device}"
            raise self._error(rule, f"encode returned {_describe(codes)}")
        return codes

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        drawn = self._call("draw", codes, rng)
        shape = (len(codes), *self._image_shape)
        found = f"draw returned {_describe(drawn)}"
        if not isinstance(drawn, Tensor) or drawn.dtype != torch.uint8 or drawn.device.type != "cpu":
            raise self._error("must draw uint8 tensors in the memory of the CPU", found)
        if drawn.shape != shape:
            raise self._error(f"must draw images of shape {list(shape)}", found)
        return drawn

    def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._generator, method)(*arguments)
        except Exception as error:
            raise self._error(f"must {method}", f"it raised {describe_raised(error)}") from error

    def _error(self, rule: str, found: str) -> StreamError:
        return StreamError(f"generator.target '{self._target}' {rule}, but {found}; fix it")


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"an object of type {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device}"
