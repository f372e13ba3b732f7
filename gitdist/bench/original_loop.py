"""The original way of training: float32, a DataLoader of PIL images with torchvision's transforms, contiguous tensors.

    PIL image -> crop -> flip -> tensor [-> normalise] -> batch [-> generator -> normalise] -> SGD step

Network, loss, learning rate and samplers are gitdist's. What is compared is how the samples come, and in which form
they are computed with.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils import data

from gitdist.bench.original import PlainMunit
from gitdist.data.dataset import Dataset
from gitdist.data.torchvision_cpu import torchvision
from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec
from gitdist.trial.epoch import learning_rate
from gitdist.trial.losses import build_loss
from gitdist.trial.mixing import replace_mask
from gitdist.trial.sampling import epoch_indices
from gitdist.trial.training import fresh_classifier

Transform = Callable[[Any], Tensor]

v2: Any = import_module(f"{torchvision.__name__}.transforms.v2")


class PilImages(data.Dataset[tuple[Tensor, int]]):
    """Images as PIL makes and transforms them, one at a time."""

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int64], transform: Transform) -> None:
        """Hold uint8 images ``[N, C, H, W]`` with their labels ``[N]``."""
        self._images, self._labels, self._transform = images, labels, transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return one transformed image, float32 ``[C, H, W]``, and its label."""
        return self._transform(pil_image(self._images[index])), int(self._labels[index])


def pil_image(image: NDArray[np.uint8]) -> Image.Image:
    """Return uint8 ``[C, H, W]`` of one or three channels as a PIL image."""
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def normalising(dataset: Dataset) -> Any:
    """Return torchvision's normalisation by the training images' statistics."""
    return v2.Normalize(list(dataset.mean), list(dataset.std))


def to_tensor(*more: Any, before: tuple[Any, ...] = ()) -> Any:
    """Return the transforms from a PIL image to float32 in 0..1, with some on the image before and some after."""
    return v2.Compose([*before, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), *more])


class OriginalTrainer:
    """Trains a classifier epoch by epoch in the original way."""

    def __init__(
        self,
        spec: TrialSpec,
        dataset: Dataset,
        device: torch.device,
        num_workers: int,
        generator: PlainMunit | None = None,
    ) -> None:
        """Make classifier, loss and optimiser.

        Args:
            spec: the trial.
            dataset: its training rows are read.
            device: where it trains.
            num_workers: processes of the DataLoader.
            generator: transforms the whole batch after the switch; None = nothing is augmented.
        """
        self.generated = 0
        self._spec, self._dataset, self._device = spec, dataset, device
        self._num_workers, self._generator = num_workers, generator
        self.model = fresh_classifier(spec, dataset).to(device)
        self._loss = build_loss(spec, dataset.class_sizes, device)
        self._optimizer = torch.optim.SGD(
            self.model.parameters(), lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay
        )
        self._images = PilImages(dataset.train.images, dataset.train.labels, self._transform())

    def run(self, epoch: int) -> int:
        """Train one epoch, counted from 1; return its samples."""
        spec = self._spec
        self.model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(spec, epoch)
        rng = numpy_rng(spec.seed, "bench/mixing", epoch)
        rows = self._rows(epoch)
        loader = data.DataLoader(self._images, spec.batch_size, sampler=rows, num_workers=self._num_workers)
        for images, labels in loader:
            images, labels = images.to(self._device), labels.to(self._device)
            if self._generator is not None and epoch > spec.switch_epoch:
                images = self._augment(images, labels, rng)
            self._step(images if self._generator is None else normalising(self._dataset)(images), labels)
        return len(rows)

    def _transform(self) -> Any:
        spec, (_, height, width) = self._spec, self._dataset.image_shape
        crop = (v2.RandomCrop((height, width), padding=spec.crop_padding),) if spec.crop_padding else ()
        flip = (v2.RandomHorizontalFlip(),) if spec.flip else ()
        normalise = (normalising(self._dataset),) if self._generator is None else ()
        return to_tensor(*normalise, before=(*crop, *flip))

    def _rows(self, epoch: int) -> list[int]:
        spec = self._spec
        sampler = spec.sampler if epoch > spec.switch_epoch else "instance"
        rng = numpy_rng(spec.seed, "trial/sample", epoch)
        labels, sizes = self._dataset.train.labels, self._dataset.class_sizes
        rows: list[int] = epoch_indices(sampler, labels, sizes, spec.effective_beta, rng).tolist()
        return rows

    def _augment(self, images: Tensor, labels: Tensor, rng: np.random.Generator) -> Tensor:
        """Transform the whole batch, and take of it what Algorithm 1 replaces."""
        assert self._generator is not None
        spec, sizes = self._spec, self._dataset.class_sizes
        mask = replace_mask(labels.cpu().numpy(), sizes, spec.threshold, spec.threshold_kind, spec.fraction, rng)
        drawn = self._generator.transform(images)
        self.generated += len(images)
        return torch.where(torch.from_numpy(mask).to(images.device)[:, None, None, None], drawn, images)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        loss = self._loss(self.model(images), labels)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        loss.item()  # the loss is added to a running mean in every step
