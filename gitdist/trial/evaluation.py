"""Evaluation of a classifier: accuracies on a split; eKLD and consistency on images and their fixed transformations.

The pairs are an artifact: built once a study, memory-mapped by all trials, so all classifiers answer for the same x'.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gitdist.data.dataset import Dataset, Split
from gitdist.data.nuisance import transform as true_transform
from gitdist.device import Compute
from gitdist.errors import SpecError, StoreError, TrialFailedError, first_line
from gitdist.networks.libraries import Normalisation
from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec
from gitdist.store import Store
from gitdist.trial.augmentation import Normaliser, input_normalisation
from gitdist.trial.metrics import (
    PAIR_METRICS,
    balanced_mean,
    balanced_standard_error,
    group_accuracies,
    log_probabilities,
    mean_variances,
    per_class_mean,
)

Transform = Callable[[NDArray[np.uint8], NDArray[np.uint8], str, int], NDArray[np.uint8]]
"""``transform(images, clean, name, index)``: a draw of every image, uint8 ``[N, C, H, W]``; name and index seed it."""

_FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class EkldRequest:
    """Which pairs of image and transformations eKLD is measured on.

    ``under`` is the T of the expectation: the data set's own ``nuisance``, or the ``generator`` if that is not known;
    ``key`` then holds all that determines the generator, as JSON values.
    """

    split: Literal["validation", "test"]
    images_per_class: int
    transformations: int
    seed: int
    under: Literal["nuisance", "generator"] = "nuisance"
    key: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class EkldSet:
    """Images before and after the transformation, read-only.

    ``images`` uint8 ``[n, C, H, W]``; ``transformed`` uint8 ``[n, t, C, H, W]``, ``transformed[i, j]`` being
    transformation j of image i; ``labels`` int64 ``[n]``; ``groups`` int64 ``[n]``, the number of the image if the
    split has no groups; ``directory`` has their files.
    """

    directory: Path
    images: NDArray[np.uint8]
    transformed: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    @classmethod
    def open(cls, directory: Path) -> "EkldSet":
        """Memory-map the set that ``ekld_set`` built in ``directory``.

        Raises:
            StoreError: a file is missing or not whole.
        """
        try:
            names = ("images", "transformed", "labels", "groups")
            arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in names}
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(
                f"the images that eKLD is measured on must be whole, but {directory} is not ({first_line(error)}); "
                "run the same command again, which builds them anew"
            ) from error
        return cls(directory=directory, **arrays)


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
        """Return the scalars by name: ``val/balanced_accuracy``, ``val/ekld``, ``val/few_accuracy`` and so on.

        The standard error of each follows as ``val/balanced_accuracy_se`` and so on.
        """
        errors = {standard_error_name(name): error for name, error in self.standard_errors.items()}
        return {f"{prefix}/{name}": value for name, value in {**self.scalars, **errors}.items()}

    def per_class(self) -> dict[str, list[float | None]]:
        """Return the class values as JSON values; None for NaN."""
        return {
            name: [None if np.isnan(value) else value for value in values.tolist()]
            for name, values in self.class_values.items()
        }


def standard_error_name(metric: str) -> str:
    """Return the name in a row of the standard error of a metric: ``val/ekld_se`` of ``val/ekld``."""
    return f"{metric}_se"


def ekld_set(dataset: Dataset, request: EkldRequest, store: Store, transform: Transform | None = None) -> EkldSet:
    """Return the pairs of ``request``, out of the store or built into it.

    Args:
        dataset: the source of the images; they are its untransformed ones.
        request: split, numbers, seed and T.
        store: where the set is kept.
        transform: draws under the generator; called once for each transformation, with all images.

    Raises:
        SpecError: T is the nuisance and the data set has none, or T is the generator and ``transform`` is missing.
    """
    draw = _transformation(dataset, request, transform)
    groups = getattr(dataset, request.split).groups
    key = {
        "format": _FORMAT,
        "dataset": dataset.fingerprint,
        "groups": None if groups is None else _digest(groups),
        "nuisance": dataset.nuisance,
        **asdict(request),
    }
    return EkldSet.open(store.get_or_build("ekld", key, lambda target, scratch: _build(dataset, request, draw, target)))


def choose_indices(
    split: Split, order: NDArray[np.int64], num_classes: int, images_per_class: int
) -> NDArray[np.int64]:
    """Return the images of a split that a measure looks at: indices, int64 ``[n]``, ordered by class.

    Of each class the first ``images_per_class`` images in ``order``; in a grouped split every group gives one image
    before any gives its second. A class with fewer images gives all of them.

    Args:
        split: images with labels and groups.
        order: the indices to choose from, int64 ``[N]``, the preferred ones first.
        num_classes: C.
        images_per_class: the most images per class.
    """
    chosen = []
    for label in range(num_classes):
        indices = order[split.labels[order] == label]
        if split.groups is not None:
            indices = indices[np.argsort(_earlier_of_group(split.groups[indices]), kind="stable")]
        chosen.append(indices[:images_per_class])
    return np.concatenate(chosen)


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
            predictions = predictor(split.images).argmax(1).cpu().numpy()
            under_transformations = None if pairs is None else _predict_pairs(predictor, pairs)
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
    if pairs is not None and under_transformations is not None:
        log_p, log_q = under_transformations
        labels = np.asarray(pairs.labels)
        per_image = {name: metric(log_p, log_q).cpu().numpy() for name, metric in PAIR_METRICS.items()}
        for name, values in per_image.items():
            means = class_values[f"{name}_per_class"] = per_class_mean(values, labels, num_classes)
            scalars[name] = balanced_mean(means)
            errors[name] = balanced_standard_error(means, mean_variances(values, labels, pairs.groups, num_classes))
        right = log_p.argmax(1).cpu().numpy() == labels
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
        parts = []
        for start in range(0, len(images), self._batch_size):
            batch = torch.tensor(images[start : start + self._batch_size], device=self._compute.device)
            with self._compute.autocast():
                logits = self._model(self._normalise(batch))
            parts.append(log_probabilities(logits))
        result = torch.cat(parts)
        if result.isnan().any():
            raise TrialFailedError("the classifier's output became nan")
        return result


def _predict_pairs(predictor: Predictor, pairs: EkldSet) -> tuple[Tensor, Tensor]:
    """Return log P(y|x), ``[n, C]``, and log P(y|x') of each transformation, ``[n, t, C]``."""
    count, transformations = pairs.transformed.shape[:2]
    log_p = predictor(pairs.images)
    log_q = predictor(pairs.transformed.reshape(count * transformations, *pairs.images.shape[1:]))
    return log_p, log_q.view(count, transformations, -1)


def _transformation(dataset: Dataset, request: EkldRequest, transform: Transform | None) -> Transform:
    match request.under:
        case "generator":
            if transform is None:
                raise SpecError(
                    "eKLD under the generator needs one, but no transformation is given; choose a generator"
                )
            return transform
        case "nuisance":
            if dataset.nuisance == "none":
                raise SpecError(
                    "eKLD under the nuisance needs a data set with one, but data.nuisance is none; "
                    "measure it under the generator"
                )
            return lambda images, clean, name, index: true_transform(
                dataset.nuisance, clean, numpy_rng(request.seed, name, index)
            )
        case unknown:
            assert_never(unknown)


def _build(dataset: Dataset, request: EkldRequest, draw: Transform, target: Path) -> None:
    split: Split = getattr(dataset, request.split)
    shuffled = numpy_rng(request.seed, "ekld/rows").permutation(len(split.labels))
    indices = choose_indices(split, shuffled, dataset.num_classes, request.images_per_class)
    images = split.clean[indices]
    shape = (len(indices), request.transformations, *images.shape[1:])
    file = target / "transformed.npy"
    transformed = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    with open(file, "r+b") as opened:  # a full disk is an error here, but kills the process that writes into the map
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    for index in range(request.transformations):
        transformed[:, index] = draw(images, images, f"ekld/{request.split}/{request.seed}", index)
    transformed.flush()
    np.save(target / "images.npy", images)
    np.save(target / "labels.npy", split.labels[indices])
    np.save(target / "groups.npy", np.arange(len(indices)) if split.groups is None else split.groups[indices])


def _earlier_of_group(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many images before each one are of its group, int64 ``[N]``."""
    by_group = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(groups[by_group], return_index=True, return_counts=True)
    earlier = np.empty(len(groups), dtype=np.int64)
    earlier[by_group] = np.arange(len(groups)) - np.repeat(starts, counts)
    return earlier


def _digest(groups: NDArray[np.int64]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(groups).data, digest_size=16).hexdigest()
