"""The original way of evaluating: each image transformed anew every time, float32, batches of 128 from a DataLoader."""

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import data

from gitdist.bench.original_loop import PilImages, normalising, pil_image, to_tensor
from gitdist.data.dataset import Dataset
from gitdist.data.nuisance import transform
from gitdist.networks.classifier import Classifier
from gitdist.trial.metrics import balanced_mean, expected_kl, log_probabilities, per_class_mean

BATCH = 128


class FreshTransformations(data.Dataset[Tensor]):
    """Each of some clean images so many times, transformed by the true nuisance when it is asked for."""

    def __init__(self, images: NDArray[np.uint8], transformations: int, nuisance: str, to_input: Any) -> None:
        """Hold clean images, uint8 ``[n, C, H, W]``."""
        self._images, self._transformations = images, transformations
        self._nuisance, self._to_input = nuisance, to_input
        self._rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self._images) * self._transformations

    def __getitem__(self, index: int) -> Tensor:
        """Return transformation ``index % t`` of image ``index // t``, float32 ``[C, H, W]``."""
        place = index // self._transformations
        drawn: Tensor = self._to_input(
            pil_image(transform(self._nuisance, self._images[place : place + 1], self._rng)[0])
        )
        return drawn


def evaluate_originally(
    model: Classifier,
    dataset: Dataset,
    images_per_class: int,
    transformations: int,
    device: torch.device,
    num_workers: int = 0,
) -> tuple[float, float | None]:
    """Return balanced accuracy and eKLD (nats) on the validation split; None where no nuisance is known.

    Args:
        model: the classifier, on ``device``, in contiguous format.
        dataset: its validation rows are read.
        images_per_class: images that eKLD is measured on.
        transformations: of each of them.
        device: where it computes.
        num_workers: processes of the DataLoaders.
    """
    split, to_input = dataset.validation, to_tensor(normalising(dataset))
    predict = partial(_predict, model, device=device, num_workers=num_workers)
    was_training = model.training
    model.eval()
    try:
        log_p = predict(PilImages(split.images, split.labels, to_input))
        correct = (log_p.argmax(1).numpy() == split.labels).astype(np.float64)
        accuracies = per_class_mean(correct, split.labels, dataset.num_classes)
        if dataset.nuisance == "none":
            return balanced_mean(accuracies), None
        rows = _first_rows(split.labels, dataset.num_classes, images_per_class)
        fresh = FreshTransformations(split.clean[rows], transformations, dataset.nuisance, to_input)
        clean = predict(PilImages(split.clean[rows], split.labels[rows], to_input))
        moved = predict(fresh).view(len(rows), transformations, -1)
    finally:
        model.train(was_training)
    values = expected_kl(clean, moved).numpy()
    return balanced_mean(accuracies), balanced_mean(per_class_mean(values, split.labels[rows], dataset.num_classes))


@torch.no_grad()
def _predict(model: Classifier, images: data.Dataset[Any], device: torch.device, num_workers: int) -> Tensor:
    """Return log P(y|x) of all images, float64 ``[N, C]`` in the processor's memory."""
    parts = []
    for batch in data.DataLoader(images, BATCH, num_workers=num_workers):
        inputs = batch if isinstance(batch, Tensor) else batch[0]
        parts.append(log_probabilities(model(inputs.to(device))).cpu())
    return torch.cat(parts)


def _first_rows(labels: NDArray[np.int64], num_classes: int, count: int) -> NDArray[np.int64]:
    return np.concatenate([np.flatnonzero(labels == index)[:count] for index in range(num_classes)])
