"""Evaluation of a classifier: accuracies on a split; eKLD and consistency on images and their fixed transformations.

Images and transformations are read batch by batch, and measured as soon as all transformations of an image are there.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gitdist.data.dataset import Dataset, Split
from gitdist.device import Compute
from gitdist.errors import TrialFailedError
from gitdist.networks.libraries import Normalisation
from gitdist.spec import TrialSpec
from gitdist.spec.objective import standard_error_name
from gitdist.trial.augmentation import Normaliser, input_normalisation
from gitdist.trial.ekld import EkldSet as EkldSet
from gitdist.trial.metrics import (
    PAIR_METRICS,
    balanced_mean,
    balanced_standard_error,
    group_accuracies,
    log_probabilities,
    mean_variances,
    per_class_mean,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What a classifier is worth on one split.

    Attributes:
        scalars: the balanced accuracy and the mean accuracies of the many-, medium- and few-shot classes that exist;
            with pairs also the mean over classes of each of ``PAIR_METRICS``.
        standard_errors: of the scalars, over the choice of the split's images, clustered by group; without those that
            cannot be estimated.
        class_values: the accuracy, and with pairs the other metrics, of each class, float64 ``[C]``, NaN for a class
            without images. ``right_ekld_per_class`` is eKLD over the images alone that are answered rightly before the
            transformation: a class that is hardly ever answered has a low eKLD without being invariant.
    """

    scalars: Mapping[str, float]
    standard_errors: Mapping[str, float]
    class_values: Mapping[str, NDArray[np.float64]]

    def metrics(self, prefix: str) -> dict[str, float]:
        """Return the scalars by name, then their standard errors; ``VALIDATION_METRICS`` has the names with ``val``."""
        errors = {standard_error_name(name): error for name, error in self.standard_errors.items()}
        return {f"{prefix}/{name}": value for name, value in {**self.scalars, **errors}.items()}

    def per_class(self) -> dict[str, list[float | None]]:
        """Return the class values as JSON values; None for NaN."""
        return {
            name: [None if np.isnan(value) else value for value in values.tolist()]
            for name, values in self.class_values.items()
        }


def evaluate(
    model: nn.Module,
    split: Split,
    pairs: EkldSet | None,
    dataset: Dataset,
    compute: Compute,
    spec: TrialSpec | None = None,
) -> Evaluation:
    """Return the accuracies on ``split`` and, with ``pairs``, eKLD and consistency; the model's mode is left as it was.

    Args:
        model: the classifier, on the device of ``compute``.
        split: the images that accuracies are measured on.
        pairs: images with their transformations; None = neither eKLD nor consistency.
        dataset: its mean, standard deviation, classes and groups.
        compute: device and precision of the forward passes; everything after the logits is float64.
        spec: of the trial, which says how the model's inputs are normalised; None = with the data set's own values.

    Raises:
        TrialFailedError: the classifier's output is NaN.
    """
    normalisation = None if spec is None else input_normalisation(spec, dataset)
    predictor, num_classes = Predictor(model, dataset, compute, normalisation), dataset.num_classes
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            predictions = predictor.classes([split.images])
            measured = None if pairs is None else _measure_pairs(predictor, pairs)
    finally:
        model.train(was_training)
    correct = (predictions == split.labels).astype(np.float64)
    accuracies = per_class_mean(correct, split.labels, num_classes)
    variances = mean_variances(correct, split.labels, split.groups, num_classes)
    groups = dataset.groups
    scalars = {"balanced_accuracy": balanced_mean(accuracies)}
    scalars |= {f"{name}_accuracy": value for name, value in group_accuracies(accuracies, groups).items()}
    errors = {"balanced_accuracy": balanced_standard_error(accuracies, variances)}
    for name, mask in groups.as_dict().items():
        errors[f"{name}_accuracy"] = balanced_standard_error(accuracies[mask], variances[mask])
    class_values = {"accuracy_per_class": accuracies}
    if pairs is not None and measured is not None:
        answers, per_image = measured
        labels = np.asarray(pairs.labels)
        for name, values in per_image.items():
            means = class_values[f"{name}_per_class"] = per_class_mean(values, labels, num_classes)
            scalars[name] = balanced_mean(means)
            errors[name] = balanced_standard_error(means, mean_variances(values, labels, pairs.groups, num_classes))
        right = answers == labels
        class_values["right_ekld_per_class"] = per_class_mean(per_image["ekld"][right], labels[right], num_classes)
    return Evaluation(
        scalars=scalars,
        standard_errors={name: error for name, error in errors.items() if error is not None},
        class_values=class_values,
    )


class Predictor:
    """Log-probabilities of uint8 images, in batches of one size."""

    def __init__(
        self, model: nn.Module, dataset: Dataset, compute: Compute, normalisation: Normalisation | None = None
    ) -> None:
        """Predict with ``model``, in evaluation mode and on the device of ``compute``; see ``evaluate``."""
        self._model, self._compute = model, compute
        self._normalise = Normaliser(*(normalisation or (dataset.mean, dataset.std)), compute.device)
        self._batch_size = 2048 if compute.device.type == "cuda" else 256

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """Return log P(y|x), float64 ``[N, C]``, of uint8 ``[N, C, H, W]``; call it in inference mode.

        Raises:
            TrialFailedError: the classifier's output is not a number.
        """
        return torch.cat(list(self.batches([images])))

    def classes(self, parts: Iterable[NDArray[np.uint8]]) -> NDArray[np.int64]:
        """Return the most probable class of each image of all parts, int64 ``[N]``; otherwise as a call."""
        return torch.cat([log_p.argmax(1) for log_p in self.batches(parts)]).cpu().numpy()

    def batches(self, parts: Iterable[NDArray[np.uint8]]) -> Iterator[Tensor]:
        """Yield the log-probabilities of the images of all parts, batch by batch; otherwise as a call."""
        for images in _in_batches(parts, self._batch_size):
            batch = torch.tensor(images, device=self._compute.device)
            with self._compute.autocast():
                logits = self._model(self._normalise(batch))
            result = log_probabilities(logits)
            if result.isnan().any():
                raise TrialFailedError("the classifier's output became nan")
            yield result


def _in_batches(parts: Iterable[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    """Yield the rows of consecutive parts in batches of one size; only the last may have fewer."""
    rest: NDArray[np.uint8] | None = None
    for part in parts:
        start = 0
        if rest is not None:
            start = size - len(rest)
            rest = np.concatenate([rest, part[:start]])
            if len(rest) < size:
                continue
            yield rest
        end = start + (len(part) - start) // size * size
        for low in range(start, end, size):
            yield part[low : low + size]
        rest = part[end:].copy() if end < len(part) else None
    if rest is not None:
        yield rest


def _measure_pairs(predictor: Predictor, pairs: EkldSet) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """Return the most probable class of each image, ``[n]``, and each of ``PAIR_METRICS``, ``[n]``."""
    log_p, transformations = predictor(pairs.images), pairs.transformations
    parts = (part.reshape(-1, *part.shape[2:]) for part in pairs.transformed_parts())
    measured: dict[str, list[Tensor]] = {name: [] for name in PAIR_METRICS}
    first, held = 0, log_p[:0]  # rows of images whose transformations are not all there
    for log_q in predictor.batches(parts):
        held = torch.cat([held, log_q])
        count = len(held) // transformations
        if count:
            whole = held[: count * transformations].view(count, transformations, -1)
            for name, metric in PAIR_METRICS.items():
                measured[name].append(metric(log_p[first : first + count], whole))
            first, held = first + count, held[count * transformations :]
    return log_p.argmax(1).cpu().numpy(), {name: torch.cat(values).cpu().numpy() for name, values in measured.items()}
