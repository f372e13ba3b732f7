"""Generators as another package would offer them: good ones, and each mistake that one can make."""

import io
import os
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gitdist.generator.base import Generator
from gitdist.generator.plugin import GeneratorContext


class Shade(Generator):
    """Adds one random grey to every pixel of an image."""

    version = 3

    def __init__(self, context: GeneratorContext, strongest: int = 50) -> None:
        self.device, self.context, self.strongest = torch.device("cpu"), context, strongest

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        return images.clone()

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        greys = torch.from_numpy(rng.integers(0, self.strongest + 1, len(codes)))
        return (codes + greys.view(-1, 1, 1, 1)).clamp(max=255).to(torch.uint8)


class Learnt(Shade):
    """Learns how strong its greys are."""

    @staticmethod
    def train(dataset, folder: Path, report, compute, steps: int = 2) -> None:
        for step in range(1, steps + 1):
            report(step, steps, {"error": 1 / step})
        (folder / "strongest.txt").write_text(str(len(dataset.train.labels) % 50 + steps))

    def __init__(self, context: GeneratorContext, steps: int = 2) -> None:
        super().__init__(context, int((context.artifact / "strongest.txt").read_text()))


class Fails(Shade):
    """Fails in the method that ``where`` names, or returns something invalid."""

    def __init__(self, context: GeneratorContext, where: str) -> None:
        if where == "weights":
            torch.load(self._pickled(), weights_only=True)
        if where == "init":
            raise ValueError("no such table\nand more")
        super().__init__(context)
        self.where = where
        if where == "device":
            del self.device

    @staticmethod
    def _pickled() -> io.BytesIO:
        buffer = io.BytesIO()
        torch.save(Namespace(), buffer)
        buffer.seek(0)
        return buffer

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        return images[:-1] if self.where == "rows" else super().encode(images, clean)

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        drawn = super().draw(codes, rng)
        if self.where == "draw":
            raise RuntimeError("lost")
        return {"dtype": drawn.float(), "shape": drawn[..., :-1], "type": drawn.numpy()}.get(self.where, drawn)


class Ends(Shade):
    """Ends its process in the method that ``where`` names; by sys.exit if it has a ``reason``."""

    def __init__(self, context: GeneratorContext, where: str, reason: str | None = None) -> None:
        super().__init__(context)
        self.where, self.reason = where, reason
        self._end("init")

    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        self._end("encode")
        return super().encode(images, clean)

    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        self._end("draw")
        if self.where == "ray" and "ray" in sys.modules:  # only a study's workers import it
            os._exit(0)
        return super().draw(codes, rng)

    def _end(self, where: str) -> None:
        if where == self.where:
            if self.reason is None:
                os._exit(0)
            sys.exit(self.reason)


class EndsTraining(Shade):
    """Ends its process in its training, which has no checkpoints."""

    @staticmethod
    def train(dataset, folder: Path, report, compute) -> None:
        report(1, 2, {"error": 1.0})
        time.sleep(0.5)  # for the report to reach the driver
        os._exit(0)


class FailsToTrain(Shade):
    @staticmethod
    def train(dataset, folder: Path, report, compute) -> None:
        raise OSError("nothing to learn")


def not_a_generator(context: GeneratorContext) -> str:
    return "nothing"


not_callable = 3


def oddly_versioned(context: GeneratorContext) -> Generator:
    return Shade(context)


oddly_versioned.version = [1]
