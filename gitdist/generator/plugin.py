"""Generators of other packages: ``generator: {kind: plugin, target: "package.module:attribute", options: {...}}``.

    attribute(context, **options) -> Generator                             a class or a function
    attribute.version                                                      optional, text or an integer
    attribute.train(dataset, folder, report, compute, **options)           optional; writes files into ``folder``,
        report(step, total_steps, {"name of a loss": value})               which ``context.artifact`` is later

Change ``version`` whenever the same options give other draws: target, options and version determine the name of a
plugin's artifacts. Its module must be importable on every node of the cluster.

A plugin's code may exit, block or crash. So commands run it in child processes (``describe_plugin``,
``isolated_generator``). Only the servers and workers of a study, which may be lost, import it themselves.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gitdist.child_process import ChildEndedError, ChildProcess
from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.errors import GitdistError, SpecError, StreamError
from gitdist.generator.base import Generator
from gitdist.plugins import describe_raised, load_attribute
from gitdist.spec import PluginSpec

_ENTRY_POINTS = "gitdist.generators"


@dataclass(frozen=True)
class PluginDescription:
    """What the names of a plugin's artifacts and the phases of a study depend on.

    Attributes:
        trains: whether it is trained on the data set before it draws.
        version: as its module states it.
    """

    trains: bool
    version: str | int | None

    def settings(self, spec: PluginSpec) -> dict[str, object]:
        """Return everything that determines its draws from given images, as JSON values."""
        return {"target": spec.target, "options": spec.options, "version": self.version}


_descriptions: dict[str, PluginDescription] = {}  # by target


def describe_plugin(target: str) -> PluginDescription:
    """Return the description of a plugin; a process that has not imported it imports it in a child process.

    Raises:
        SpecError: it cannot be imported or called, its import ends the process, or its version is of another type.
    """
    if target not in _descriptions:
        with _child(target) as run:
            _descriptions[target] = run("return from its import", _describe_here, target)
    return _descriptions[target]


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
        version = getattr(self._attribute, "version", None)
        if version is not None and not isinstance(version, str | int):
            raise self._error("must have a version that is text or an integer", f"it is {version!r}")
        trains = callable(getattr(self._attribute, "train", None))
        self.description = _descriptions[spec.target] = PluginDescription(trains, version)

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
        except (GitdistError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise self._error(rule, f"it raised {describe_raised(error)}") from error

    def _error(self, rule: str, found: str) -> SpecError:
        return _error(self._spec.target, rule, found)


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
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._error(f"must {method}", f"it raised {describe_raised(error)}") from error

    def _error(self, rule: str, found: str) -> StreamError:
        return StreamError(f"generator.target '{self._target}' {rule}, but {found}; fix it")


@contextmanager
def isolated_generator(spec: PluginSpec, context: GeneratorContext) -> Iterator[Generator]:
    """Yield a plugin's generator that runs in a child process; see ``Plugin.build``.

    Raises:
        SpecError: it cannot be built, or has ended its process.
    """
    with _child(spec.target) as run:
        yield _IsolatedGenerator(run, spec, context)


class _IsolatedGenerator(Generator):
    """Passes the calls on to a generator in a child process."""

    def __init__(self, run: Callable[..., Any], spec: PluginSpec, context: GeneratorContext) -> None:
        self.device = run("build a generator", _build_here, spec, context)
        self._run = run

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        codes: Tensor = self._run("encode", _encode_here, images, clean)
        return codes

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        drawn: Tensor
        drawn, rng.bit_generator.state = self._run("draw", _draw_here, codes, rng)
        return drawn


@contextmanager
def _child(target: str) -> Iterator[Callable[..., Any]]:
    """Yield ``run(rule, function, *arguments)``: run functions that call the plugin in a child process."""
    with ExitStack() as stack:
        try:
            child = stack.enter_context(ChildProcess(__name__))
        except (ChildEndedError, OSError) as error:
            raise SpecError(f"a process for generator.target '{target}' cannot be started: {error}") from error

        def run(rule: str, function: Callable[..., Any], *arguments: Any) -> Any:
            try:
                return child.call(f"generator.target '{target}' must {rule}", function, *arguments)
            except ChildEndedError as error:
                raise _error(target, f"must {rule}", str(error)) from None

        yield run


# These run in the child process.

_built: list[Generator] = []


def _describe_here(target: str) -> PluginDescription:
    return Plugin(PluginSpec(target=target)).description


def _build_here(spec: PluginSpec, context: GeneratorContext) -> torch.device:
    _built[:] = [Plugin(spec).build(context)]
    return _built[0].device


def _encode_here(images: Tensor, clean: Tensor) -> Tensor:
    return _built[0].encode(images, clean)


def _draw_here(codes: Tensor, rng: np.random.Generator) -> tuple[Tensor, Mapping[str, Any]]:
    return _built[0].draw(codes, rng), rng.bit_generator.state


def _error(target: str, rule: str, found: str) -> SpecError:
    return SpecError(f"generator.target '{target}' {rule}, but {found}; fix it or generator.options")


def _describe(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"an object of type {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)} on {value.device}"
