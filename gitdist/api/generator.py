"""Generators for the user's own code: trained in this process, or loaded from a file."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gitdist.api.arguments import Images, check_count, check_settings, choose_compute, read_images, to_pixels
from gitdist.api.dataset import Dataset
from gitdist.errors import SpecError, StoreError, StudyError, TrialFailedError
from gitdist.generator import base
from gitdist.generator.grid import draw_rows, spread
from gitdist.generator.kinds import load_generator, obtain_artifact
from gitdist.generator.pretrained import load_pretrained, save_munit
from gitdist.generator.resizing import ResizedGenerator, generated_shape
from gitdist.input_file import expand_home
from gitdist.seeds import numpy_rng
from gitdist.spec import GeneratorSpec, MunitSpec
from gitdist.store import Store
from gitdist.stream.blocks import ENCODE_BATCH


class Generator:
    """Draws versions of images: x' ~ P(.|x), the class kept. ``train_generator`` and ``load`` return one.

    A generator can be pickled, so that workers of a ``DataLoader`` draw on the CPU. For one thread.

    Attributes:
        image_shape: (C, H, W) of the images that it draws from.
        device: where it draws.
    """

    def __init__(
        self,
        drawing: base.Generator,
        image_shape: tuple[int, int, int],
        *,
        write: Callable[[Path], None] | None = None,
    ) -> None:
        """Wrap a generator of the interface for plugins; ``write`` is what ``save`` does."""
        self.image_shape, self.device = image_shape, drawing.device
        self._drawing, self._write = drawing, write

    def __repr__(self) -> str:
        return f"<gitdist.Generator: {type(self._drawing).__name__} of images {self.image_shape} on {self.device}>"

    @classmethod
    def load(
        cls,
        path: str | Path,
        image_shape: tuple[int, int, int],
        *,
        image_size: int | None = None,
        device: str | torch.device | None = None,
    ) -> "Generator":
        """Return the MUNIT in a file that ``save`` or ``gitdist generator import`` wrote.

        Args:
            path: of the file.
            image_shape: (C, H, W) of the images to draw from.
            image_size: longer side in pixels at which it draws, as in its training; None = that of the images.
            device: to draw on; None = a GPU if there is one, else the CPU.

        Raises:
            DataError: the file cannot be read.
            SpecError: it is another file, or its generator does not fit such images.
        """
        try:
            channels, height, width = image_shape
        except (TypeError, ValueError):
            raise SpecError(f"Generator.load: image_shape must be (C, H, W), but it is {image_shape!r}") from None
        image_shape = channels, height, width
        compute, shape = choose_compute("Generator.load", device), generated_shape(image_size, image_shape)
        drawing: base.Generator = load_pretrained(expand_home(path), shape, compute)
        if shape != image_shape:
            drawing = ResizedGenerator(drawing, shape, image_shape)
        return cls(drawing, image_shape)

    def save(self, path: str | Path) -> None:
        """Write a MUNIT that ``train_generator`` returned to a safetensors file.

        ``load`` reads it, and so does a study with ``generator: {kind: pretrained, path: ...}``.

        Raises:
            SpecError: this is another kind of generator, or one that was loaded.
            StoreError: the file cannot be written.
        """
        if self._write is None:
            raise SpecError("Generator.save: only a MUNIT that train_generator returned can be saved; train one")
        try:
            self._write(expand_home(path))
        except OSError as error:
            raise StoreError(f"Generator.save: {path} cannot be written ({error.strerror}); choose another") from None

    def draw(self, images: Images, seed: int = 0, *, num_draws: int | None = None) -> Tensor:
        """Return new draws of images; the same images and seed give the same draws.

        Args:
            images: ``[N, C, H, W]``, uint8 or float in 0..1, which is rounded to 256 levels. The oracle applies the
                true nuisance to them, so they must be untransformed then.
            seed: of the draws.
            num_draws: of each image; None = one.

        Returns:
            uint8 ``[N, C, H, W]``, or ``[N, num_draws, C, H, W]``, on the device of ``images``.

        Raises:
            SpecError: the images have another shape, type or range.
            StreamError: a plugin or an imported generator fails.
        """
        images = read_images("Generator.draw", images)
        draws = [
            drawn.to(images.device) for drawn in self.draw_each(images, seed, 1 if num_draws is None else num_draws)
        ]
        return draws[0] if num_draws is None else torch.stack(draws, 1)

    def draw_each(self, images: Tensor, seed: int, num_draws: int) -> Iterator[Tensor]:
        """Yield the draws of ``draw`` one after the other, uint8 ``[N, C, H, W]`` on the CPU, in less memory."""
        check_count("Generator.draw", "num_draws", num_draws)
        pixels = to_pixels("Generator.draw", read_images("Generator.draw", images))
        if tuple(pixels.shape[1:]) != self.image_shape:
            found = list(pixels.shape[1:])
            raise SpecError(f"Generator.draw: images must be {list(self.image_shape)} each, but they are {found}")
        parts = [pixels[low : low + ENCODE_BATCH] for low in range(0, len(pixels), ENCODE_BATCH)]
        codes = [self._drawing.encode(part, part) for part in parts]
        for index in range(num_draws):
            drawn = [
                self._drawing.draw(code, numpy_rng(seed, "api/draw", index, part)) for part, code in enumerate(codes)
            ]
            yield torch.cat(drawn) if drawn else pixels.cpu()

    def preview(
        self, images: Images, *, num_draws: int = 8, seed: int = 0, names: Sequence[str] | None = None
    ) -> Image.Image:
        """Return a picture with a row per image: the image and its draws, small ones enlarged.

        Of very many images some at equal distances are shown.

        Args:
            images: as of ``draw``, with one or three channels.
            num_draws: of each image.
            seed: of the draws.
            names: text before each row; None = none.

        Raises:
            SpecError: as ``draw``; no image or another number of channels or names.
        """
        check_count("Generator.preview", "num_draws", num_draws)
        images = read_images("Generator.preview", images)
        if not len(images) or images.shape[1] not in (1, 3):
            found = list(images.shape)
            raise SpecError(
                f"Generator.preview: images must have 1 or 3 channels, at least one image, but have {found}"
            )
        texts = [""] * len(images) if names is None else list(names)
        if len(texts) != len(images):
            raise SpecError(f"Generator.preview: names must be {len(images)}, one per image, but are {len(texts)}")
        shown = spread(len(images), (1 + num_draws) * images[0].numel())
        images = images[torch.from_numpy(shown).to(images.device)]
        drawn = self.draw(images, seed, num_draws=num_draws)
        cells = torch.cat([to_pixels("Generator.preview", images)[:, None], drawn], 1)
        return Image.fromarray(draw_rows(cells.cpu().numpy(), [texts[index] for index in shown]))


def train_generator(
    dataset: Dataset,
    *,
    kind: str = "munit",
    steps: int | None = None,
    device: str | torch.device | None = None,
    progress: Callable[[base.TrainingStep], None] | None = None,
    **options: Any,
) -> Generator:
    """Return a generator of a data set, out of the data set's store or trained into it, in this process.

    Studies with the same data set and generator use the same one. An interrupted training resumes from its last
    checkpoint at the next call.

    Args:
        dataset: its training images and labels are learnt from; MUNIT draws the classes equally often.
        kind: ``munit`` (Huang et al. 2018, arXiv 1804.04732), or without training ``oracle`` (the data set's own
            nuisance, for images without it, such as ``dataset.prepared.train.clean``), ``identity``, ``randaugment``,
            ``pretrained`` (``path``), ``plugin`` (``target``, ``options``).
        steps: of MUNIT's training; None = 10,000.
        device: of training and drawing; None = a GPU if there is one, else the CPU.
        progress: called with a ``TrainingStep`` (step, total, losses, elapsed_s) every few steps.
        options: the other fields of ``generator`` in a study file: of MUNIT ``dim``, ``batch_size``, ``lr``, ``seed``,
            ``image_size`` and so on.

    Raises:
        SpecError: a kind or an option that does not exist, a value out of range, or images that do not fit.
        StudyError: training diverged.
        StoreError: the store cannot be read or written.
    """
    if not isinstance(dataset, Dataset):
        raise SpecError(f"train_generator: dataset must be a gitdist.Dataset, but it is a {type(dataset).__name__}")
    if progress is not None and not callable(progress):
        raise SpecError(f"train_generator: progress must be a function of a TrainingStep, but it is {progress!r}")
    lengths = {} if steps is None else {"steps": steps}
    spec: GeneratorSpec = check_settings("train_generator", GeneratorSpec, kind=kind, **lengths, **options)
    compute, prepared = choose_compute("train_generator", device), dataset.prepared
    store = Store(prepared.directory.parents[1])
    try:
        artifact = obtain_artifact(spec, prepared, store, progress or (lambda step: None), compute)
    except TrialFailedError as error:
        raise StudyError(f"training the generator failed: {error}; lower lr or pass precision='float32'") from None
    drawing = load_generator(spec, prepared, artifact, compute)
    write = None
    if isinstance(spec, MunitSpec):
        assert artifact is not None, "a trained generator has an artifact"
        write = partial(save_munit, spec, prepared.image_shape[0], artifact)
    return Generator(drawing, prepared.image_shape, write=write)
