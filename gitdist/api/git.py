"""Generative invariance transfer (GIT) in a training loop of the user: Algorithm 1 on one batch after another."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from gitdist.api.arguments import (
    Labels,
    check_classes,
    check_settings,
    read_class_sizes,
    read_images,
    read_labels,
)
from gitdist.api.generator import Generator
from gitdist.api.transform import Transform, check_transform, draw_versions
from gitdist.errors import SpecError
from gitdist.seeds import derive_seed, numpy_rng
from gitdist.spec import TrialSpec
from gitdist.trial.mixing import replaced_of_batch, replacement_probabilities

_SHOWN = ("threshold", "threshold_kind", "fraction", "seed")


class GIT:
    """Replaces samples of small classes by draws of a generator (Zhou et al. 2022, arXiv 2203.09739, Algorithm 1).

    Of a batch of n the first ``int(fraction * n)`` samples can be replaced, and of them those whose class has fewer
    than ``threshold`` training images. So the samples of a batch must come in random order. In a loop, on any device::

        git = gitdist.GIT(generator, class_sizes, threshold=100)
        for images, labels in loader:
            images, labels = git(images.to(device), labels.to(device))

    or on the CPU, by the workers of a loader: ``DataLoader(dataset, batch_size=128, collate_fn=git.collate)``.

    **Randomness.** Each call draws what ``seed`` and ``step``, the number of calls before, determine. To continue an
    interrupted loop exactly, store ``step`` and set it again. In a worker they are counted from the worker's own seed,
    which torch draws for each worker whenever a loader is iterated: all batches of all epochs differ, and are the same
    again if the loader has a ``generator`` with the same seed (or ``torch.manual_seed`` was called with it) and as many
    workers. Processes of distributed training need a ``seed`` each.

    Attributes:
        step: the number of the next call.
    """

    def __init__(
        self,
        generator: Transform,
        class_sizes: Labels,
        threshold: float | None = None,
        fraction: float = 0.5,
        seed: int = 0,
        *,
        threshold_kind: str = "hard",
    ) -> None:
        """Choose what is replaced.

        Args:
            generator: draws from the samples' own images; or any function of images, uint8 or float as they come,
                that returns images of the same shape, type and device. The oracle of a data set draws from images
                without the nuisance alone: of ``prepared.train.clean``, not of ``prepared.train.images``.
            class_sizes: training images of each class, ``[C]``.
            threshold: K; None = all classes.
            fraction: p, 0..1.
            seed: of all random choices.
            threshold_kind: ``hard``; ``soft`` replaces a sample of class c with probability
                max(0, (K - n_c) / (K - n_min)), n_min being the smallest class's size.

        Raises:
            SpecError: a value out of range, or a soft threshold that is not above the smallest class's size.
        """
        check_transform("GIT", generator)
        sizes = read_class_sizes("GIT", class_sizes)
        settings = {"threshold": threshold, "fraction": fraction, "threshold_kind": threshold_kind, "seed": seed}
        self._spec: TrialSpec = check_settings("GIT", TrialSpec, **settings)
        self._probabilities = replacement_probabilities(self._spec, sizes)
        self._generator = generator
        self.step = 0

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self._spec, name)!r}" for name in _SHOWN)
        return f"<gitdist.GIT: {shown}, step={self.step}>"

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the batch with some images replaced, as a new tensor of the same type; and the labels.

        Args:
            images: uint8, or float in 0..1, ``[n, C, H, W]``, before their normalisation. Float images that are
                replaced are rounded to the 256 levels of uint8 for the generator, and its draws divided by 255.
            labels: int64 ``[n]``, on any device.

        Raises:
            SpecError: images or labels have another shape, type or range.
            StreamError: a plugin or an imported generator fails.
        """
        images = read_images("GIT", images)
        classes = read_labels("GIT", "labels", labels)
        check_classes("GIT", classes, len(self._probabilities))
        if len(classes) != len(images):
            raise SpecError(f"GIT: each image must have a label, but {len(images)} images have {len(classes)}")
        seed = self._next_seed()
        rng = numpy_rng(seed, "api/git/replaced")
        replaced = replaced_of_batch(classes, self._probabilities, self._spec.fraction, rng)
        mixed = images.clone()
        if replaced.any():
            chosen = torch.from_numpy(np.flatnonzero(replaced)).to(images.device)
            (drawn,) = draw_versions("GIT", self._generator, images[chosen], 1, seed)
            mixed[chosen] = drawn
        return mixed, labels

    def collate(self, samples: Sequence[tuple[Any, Any]]) -> tuple[Tensor, Tensor]:
        """Return samples (image ``[C, H, W]``, label) as a batch with some images replaced: a ``collate_fn``.

        Raises:
            SpecError: as a call, or the generator is on a GPU and this is a worker of a loader.
        """
        on_gpu = isinstance(self._generator, Generator) and self._generator.device.type != "cpu"
        if on_gpu and get_worker_info() is not None:
            raise SpecError("GIT: a worker of a loader needs a generator on the CPU; pass device='cpu' for it")
        batch = default_collate(list(samples))
        if not isinstance(batch, list | tuple) or len(batch) != 2:
            raise SpecError("GIT.collate: each sample must be (image, label), but these are not; convert them before")
        return self(*batch)

    def _next_seed(self) -> int:
        worker = get_worker_info()
        root = self._spec.seed if worker is None else derive_seed(self._spec.seed, "api/git/worker", worker.seed)
        seed = derive_seed(root, "api/git", self.step)
        self.step += 1
        return seed
