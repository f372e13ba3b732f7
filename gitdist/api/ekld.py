"""eKLD of the user's own classifier: how far its answers change under a transformation that keeps the class."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gitdist.api.arguments import Images, Labels, check_classes, check_count, read_images, read_labels
from gitdist.api.transform import Transform, check_transform, draw_versions
from gitdist.errors import SpecError
from gitdist.seeds import derive_seed
from gitdist.trial.metrics import (
    balanced_mean,
    balanced_standard_error,
    expected_kl,
    log_probabilities,
    mean_variances,
    per_class_mean,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class EkldEstimate:
    """Expected KL divergence in nats, 0 = invariant; standard errors are NaN where they cannot be estimated.

    Attributes:
        value: the mean over classes of the classes' means; without labels the mean over images.
        standard_error: of ``value``, over the choice of the images. A class with one image has no variance of its own;
            its difference from the other classes replaces it, which is conservative.
        per_class: mean over the images of each class, float64 ``[C]``, NaN for a class without images; None without
            labels.
        per_class_standard_error: float64 ``[C]``, NaN for a class with fewer than two images; None without labels.
        per_image: mean over the transformations of each image, float64 ``[N]``.
    """

    value: float
    standard_error: float
    per_class: NDArray[np.float64] | None
    per_class_standard_error: NDArray[np.float64] | None
    per_image: NDArray[np.float64] = field(repr=False)


def ekld(
    model: nn.Module,
    images: Images,
    transform: Transform,
    labels: Labels | None = None,
    *,
    transformations: int = 10,
    batch_size: int = 256,
    seed: int = 0,
    groups: Labels | None = None,
) -> EkldEstimate:
    """Return E_x E_x' KL(P(.|x) || P(.|x')), x' being ``transform`` of x (Zhou et al. 2022, arXiv 2203.09739).

    The model answers in evaluation mode, on the device and in the type of its first parameter; the modes of all its
    modules are restored. Logits are taken to float64.

    Args:
        model: returns logits ``[n, C]`` of images.
        images: untransformed ones, ``[N, C, H, W]``, as the model takes them; for a ``Generator`` uint8 or float in
            0..1, so that a normalisation belongs into the model.
        transform: a ``Generator``, or a function of images ``[n, C, H, W]`` that returns as many of the same type;
            one that draws from torch's random state is reproducible.
        labels: class of each image, ``[N]``; None = no values per class, and ``value`` is the mean over images.
        transformations: of each image.
        batch_size: images at a time; it belongs to what ``seed`` determines.
        seed: of the transformations.
        groups: number of the group of each image ``[N]`` (patient, video, object); None = each image is its own.

    Returns:
        The estimate. Its standard errors take images, or groups of images, as independent draws, classes and the
        transformations of different images too. They contain the variance that the finite number of transformations
        adds, but not that of training model or generator again. With few images (below ten or so per class) they are
        themselves uncertain.

    Raises:
        SpecError: an argument has another shape, type or range, or the model's answer is not a number.
        StreamError: a plugin or an imported generator fails.
    """
    if not isinstance(model, nn.Module):
        raise SpecError(f"ekld: model must be a torch.nn.Module, but it is a {type(model).__name__}; wrap it in one")
    check_transform("ekld", transform)
    images = read_images("ekld", images)
    if not len(images):
        raise SpecError("ekld: images must be at least 1, but there are none")
    check_count("ekld", "transformations", transformations)
    check_count("ekld", "batch_size", batch_size)
    classes = None if labels is None else _per_image("labels", labels, len(images))
    clusters = None if groups is None else _per_image("groups", groups, len(images))
    parts, num_classes = [], 1
    with _evaluation_mode(model), torch.no_grad():
        for first in range(0, len(images), batch_size):
            values, num_classes = _measure(
                model,
                images[first : first + batch_size],
                transform,
                transformations,
                derive_seed(seed, "api/ekld", first),
            )
            parts.append(values)
    per_image = np.concatenate(parts)
    if classes is None:
        classes, num_classes = np.zeros(len(images), np.int64), 1
    check_classes("ekld", classes, num_classes)
    means = per_class_mean(per_image, classes, num_classes)
    variances = mean_variances(per_image, classes, clusters, num_classes)
    error = balanced_standard_error(means, variances)
    return EkldEstimate(
        value=balanced_mean(means),
        standard_error=math.nan if error is None else error,
        per_class=None if labels is None else means,
        per_class_standard_error=None if labels is None else np.sqrt(variances),
        per_image=per_image,
    )


def _per_image(name: str, values: Labels, num_images: int) -> NDArray[np.int64]:
    read = read_labels("ekld", name, values)
    if len(read) != num_images:
        raise SpecError(f"ekld: {name} must be {num_images}, one per image, but they are {len(read)}")
    return read


def _measure(
    model: nn.Module, images: Tensor, transform: Transform, num_transformations: int, seed: int
) -> tuple[NDArray[np.float64], int]:
    """Return the mean KL divergence of each image, float64 ``[n]``, and the number of classes."""
    reference: Any = next(chain(model.parameters(), model.buffers()), images)
    images = images.to(reference.device)

    def log_p_of(batch: Tensor) -> Tensor:
        fits = batch.is_floating_point() and reference.is_floating_point()
        logits = model(batch.to(reference.dtype) if fits else batch)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(batch):
            found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise SpecError(f"ekld: the model must return logits [{len(batch)}, C], but it returned {found}")
        log_p = log_probabilities(logits)
        if log_p.isnan().any():
            raise SpecError("ekld: the model must return numbers, but its output has NaN")
        return log_p

    log_p = log_p_of(images)
    total = log_p.new_zeros(len(images))
    for drawn in draw_versions("ekld", transform, images, num_transformations, seed):
        total += expected_kl(log_p, log_p_of(drawn)[:, None])
    return (total / num_transformations).cpu().numpy(), log_p.shape[1]


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
