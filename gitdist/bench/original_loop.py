"""The original way of training: float32, a DataLoader of PIL images with torchvision's transforms, contiguous tensors.

    PIL image -> crop -> flip -> RandAugment -> tensor [-> normalise] -> batch [-> generator -> normalise] -> SGD step

Network, loss, learning rate and samplers are gitdist's. What is compared is how the samples come, and in which form
they are computed with. Of torchvision's two sets of transforms the faster on PIL images is taken: the first, but for
RandAugment.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils import data

from gitdist.balancing.losses import Loss
from gitdist.bench.original import PlainMunit
from gitdist.data.dataset import Dataset
from gitdist.spec import TrialSpec
from gitdist.torchvision_cpu import torchvision
from gitdist.trial.mixing import replaced_samples
from gitdist.trial.plan import build_loss, epoch_indices, learning_rate
from gitdist.trial.training import fresh_classifier

Transform = Callable[[Any], Tensor]

v1, v2 = (import_module(f"{torchvision.__name__}.transforms{version}") for version in ("", ".v2"))


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
    return v1.Normalize(list(dataset.mean), list(dataset.std))


def to_tensor(*more: Any, before: tuple[Any, ...] = ()) -> Any:
    """Return the transforms from a PIL image to float32 in 0..1, with some on the image before and some after."""
    return v1.Compose([*before, v1.ToTensor(), *more])


def loader_processes(device: torch.device, cpu: float) -> int:
    """Return the processes of a trial's DataLoader, ``cpu`` being its share: none where it computes on these cores."""
    return 0 if device.type == "cpu" else int(cpu)


class EpochRows(data.Sampler[int]):
    """The rows of the present epoch, in the order they are trained on."""

    def __init__(self) -> None:
        """Start without any."""
        self.rows: list[int] = []

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


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
        """Make classifier, loader and optimiser.

        Args:
            spec: the trial.
            dataset: its training rows are read.
            device: where it trains.
            num_workers: processes of the DataLoader, which live as long as the trainer.
            generator: transforms the whole batch after the switch; None = nothing is augmented.
        """
        self.generated = 0
        self._spec, self._dataset, self._device = spec, dataset, device
        self._generator = generator
        self.model = fresh_classifier(spec, dataset).to(device)
        self._optimizer = torch.optim.SGD(
            self.model.parameters(), lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay
        )
        self._sampler = EpochRows()
        self._loader = data.DataLoader(
            PilImages(dataset.train.images, dataset.train.labels, self._transform()),
            spec.batch_size,
            sampler=self._sampler,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=device.type == "cuda",
        )

    def run(self, epoch: int) -> int:
        """Train one epoch, counted from 1; return its samples."""
        spec = self._spec
        self.model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(spec, epoch)
        train, sizes = self._dataset.train, self._dataset.class_sizes
        indices = epoch_indices(spec, train.labels, sizes, epoch)
        self._sampler.rows = indices.tolist()
        replaced = torch.from_numpy(replaced_samples(spec, train.labels[indices], sizes, epoch)).to(self._device)
        loss_of = build_loss(spec, sizes, epoch, self._device)
        for (images, labels), mask in zip(self._loader, torch.split(replaced, spec.batch_size), strict=True):
            images = images.to(self._device, non_blocking=True)
            labels = labels.to(self._device, non_blocking=True)
            if self._generator is not None and epoch > spec.switch_epoch:
                images = self._augment(images, mask)
            self._step(images if self._generator is None else normalising(self._dataset)(images), labels, loss_of)
        return len(self._sampler)

    def _transform(self) -> Any:
        spec, (_, height, width) = self._spec, self._dataset.image_shape
        crop = (v1.RandomCrop((height, width), padding=spec.crop_padding),) if spec.crop_padding else ()
        flip = (v1.RandomHorizontalFlip(),) if spec.flip else ()
        ops, magnitude = spec.randaugment_ops, spec.randaugment_magnitude
        randaugment = (v2.RandAugment(ops, magnitude),) if ops else ()
        normalise = (normalising(self._dataset),) if self._generator is None else ()
        return to_tensor(*normalise, before=(*crop, *flip, *randaugment))

    def _augment(self, images: Tensor, mask: Tensor) -> Tensor:
        """Transform the whole batch, and take of it what Algorithm 1 replaces."""
        assert self._generator is not None
        drawn = self._generator.transform(images)
        self.generated += len(images)
        return torch.where(mask[:, None, None, None], drawn, images)

    def _step(self, images: Tensor, labels: Tensor, loss_of: Loss) -> None:
        loss = loss_of(self.model(images), labels)
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        loss.item()  # the loss is added to a running mean in every step
