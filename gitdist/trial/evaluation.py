"""Evaluation of a classifier: accuracies on a split; eKLD and consistency on images and their fixed transformations.

The pairs are an artefact: built once a study, memory-mapped by all trials, so all classifiers answer for the same x'.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gitdist.data.dataset import Dataset, Split
from gitdist.data.longtail import Groups
from gitdist.data.nuisance import transform as true_transform
from gitdist.device import Compute
from gitdist.errors import SpecError, StoreError, TrialFailedError, first_line
from gitdist.seeds import numpy_rng
from gitdist.store import Store
from gitdist.trial.augment import Normaliser
from gitdist.trial.classifier import Classifier
from gitdist.trial.image_choice import choose_rows
from gitdist.trial.metrics import (
    balanced_mean,
    balanced_standard_error,
    class_accuracies,
    consistency,
    expected_kl,
    group_accuracies,
    log_probabilities,
    mean_variances,
    per_class_mean,
)

Transform = Callable[[NDArray[np.uint8], NDArray[np.uint8], str, int], NDArray[np.uint8]]
"""``transform(images, clean, name, index)``: a draw of every image, uint8 ``[N, C, H, W]``; name and index seed it."""

_FORMAT = 2
_PER_CLASS = ("accuracy_per_class", "ekld_per_class", "right_ekld_per_class", "consistency_per_class")
_BATCH = {"cpu": 256, "cuda": 2048}


@dataclass(frozen=True, kw_only=True)
class EkldRequest:
    """Which pairs of image and transformations eKLD is measured on.

    ``under`` is the T of the expectation: the data set's own ``nuisance``, or the ``generator`` where that is not
    known; ``key`` then holds all that determines the generator, as JSON values.
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
    transformation j of image i; ``labels`` int64 ``[n]``; ``groups`` int64 ``[n]``, the number of the image where the
    split has no groups; ``directory`` is where their files are.
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
            arrays = {
                name: np.load(directory / f"{name}.npy", mmap_mode="r")
                for name in ("images", "transformed", "labels", "groups")
            }
        except (OSError, ValueError, EOFError) as error:
            raise StoreError(
                f"the images that eKLD is measured on must be whole, but {directory} is not ({first_line(error)}); "
                "run the same command again, which builds them anew"
            ) from error
        return cls(directory=directory, **arrays)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What a classifier is worth on one split.

    Accuracies in 0..1, eKLD in nats. ``groups`` has the mean accuracy of the many-, medium- and few-shot classes, as
    far as there are any. ``consistency``, in 0..1, is the share of transformations under which the answer stays the
    same. ``right_ekld`` is eKLD over the images alone that are answered rightly before the transformation: a class that
    is hardly ever answered has a low eKLD without being invariant. What is measured per class is float64 ``[C]``, NaN
    for a class without such images; what needs a transformation is None where there was none.

    ``standard_errors`` are those of the scalars, by name as in ``metrics`` without the prefix: over the choice of the
    split's images, clustered by group. A scalar whose standard error cannot be estimated is left out.
    """

    balanced_accuracy: float
    groups: Mapping[str, float]
    accuracy_per_class: NDArray[np.float64]
    ekld: float | None
    ekld_per_class: NDArray[np.float64] | None
    right_ekld_per_class: NDArray[np.float64] | None
    consistency: float | None
    consistency_per_class: NDArray[np.float64] | None
    standard_errors: Mapping[str, float]

    def metrics(self, prefix: str = "val") -> dict[str, float]:
        """Return the scalars by name: ``val/balanced_accuracy``, ``val/ekld``, ``val/few_accuracy`` and so on.

        The standard error of each follows as ``val/balanced_accuracy_se`` and so on.
        """
        metrics = {f"{prefix}/balanced_accuracy": self.balanced_accuracy}
        metrics |= {f"{prefix}/{name}_accuracy": value for name, value in self.groups.items()}
        under_transformation = {"ekld": self.ekld, "consistency": self.consistency}
        metrics |= {f"{prefix}/{name}": value for name, value in under_transformation.items() if value is not None}
        return metrics | {
            f"{prefix}/{standard_error_name(name)}": value for name, value in self.standard_errors.items()
        }

    def per_class(self) -> dict[str, list[float | None]]:
        """Return what is measured per class as JSON values, by its name here; None for NaN."""
        measured = {name: getattr(self, name) for name in _PER_CLASS}
        return {
            name: [None if np.isnan(value) else value for value in values.tolist()]
            for name, values in measured.items()
            if values is not None
        }


def standard_error_name(metric: str) -> str:
    """Return the name in a row of the standard error of a metric: ``val/ekld_se`` of ``val/ekld``."""
    return f"{metric}_se"


def ekld_set(dataset: Dataset, request: EkldRequest, store: Store, transform: Transform | None = None) -> EkldSet:
    """Return the pairs of ``request``, out of the store or built into it.

    Args:
        dataset: where the images are from; they are its untransformed ones.
        request: split, numbers, seed and T.
        store: where the set is kept.
        transform: draws under the generator; called once for each transformation, with all images.

    Raises:
        SpecError: T is the nuisance and the data set has none, or T is the generator and ``transform`` is missing.
    """
    _check_transformation(dataset, request, transform)
    key = {
        "format": _FORMAT,
        "dataset": dataset.fingerprint,
        "groups": _groups_digest(getattr(dataset, request.split)),
        "nuisance": dataset.nuisance,
        **asdict(request),
    }
    draw = transform if request.under == "generator" and transform else _true_draws(dataset.nuisance, request.seed)
    return EkldSet.open(store.get_or_build("ekld", key, lambda target, scratch: _build(dataset, request, draw, target)))


def evaluate(model: Classifier, split: Split, pairs: EkldSet | None, dataset: Dataset, compute: Compute) -> Evaluation:
    """Return the accuracies on ``split`` and, with ``pairs``, eKLD and consistency; the model's mode is left as it was.

    Args:
        model: the classifier, on the device of ``compute``.
        split: the rows that accuracies are measured on.
        pairs: images with their transformations; None = neither eKLD nor consistency.
        dataset: its mean, standard deviation, classes and groups.
        compute: device and precision of the forward passes; everything after the logits is float64.

    Raises:
        TrialFailedError: the classifier's output is NaN.
    """
    predictor = Predictor(model, dataset, compute)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            predictions = predictor(split.images).argmax(1).cpu().numpy()
            under_pairs = None if pairs is None else _under(predictor, pairs, dataset.num_classes)
    finally:
        model.train(was_training)
    accuracies = class_accuracies(predictions, split.labels, dataset.num_classes)
    eklds, right_eklds, consistencies, errors = under_pairs or (None, None, None, {})
    return Evaluation(
        balanced_accuracy=balanced_mean(accuracies),
        groups=group_accuracies(accuracies, dataset.groups),
        accuracy_per_class=accuracies,
        ekld=None if eklds is None else balanced_mean(eklds),
        ekld_per_class=eklds,
        right_ekld_per_class=right_eklds,
        consistency=None if consistencies is None else balanced_mean(consistencies),
        consistency_per_class=consistencies,
        standard_errors=_accuracy_errors(predictions, accuracies, split, dataset.groups) | errors,
    )


class Predictor:
    """Log-probabilities of uint8 images, in batches of one size."""

    def __init__(self, model: Classifier, dataset: Dataset, compute: Compute) -> None:
        """Predict with ``model``, in evaluation mode and on the device of ``compute``, on images of ``dataset``."""
        self._model, self._compute = model, compute
        self._normalise = Normaliser(dataset.mean, dataset.std, compute.device)
        self._batch = _BATCH.get(compute.device.type, 256)

    def __call__(self, images: NDArray[np.uint8]) -> Tensor:
        """Return log P(y|x), float64 ``[N, C]``, of uint8 ``[N, C, H, W]``; call it in inference mode.

        Raises:
            TrialFailedError: the classifier's output is not a number.
        """
        parts = [self._predict(images[low : low + self._batch]) for low in range(0, len(images), self._batch)]
        result = torch.cat(parts)
        if result.isnan().any():
            raise TrialFailedError("the classifier's output became nan")
        return result

    def _predict(self, images: NDArray[np.uint8]) -> Tensor:
        with self._compute.autocast():
            return log_probabilities(self._model(self._normalise(torch.tensor(images, device=self._compute.device))))


def _accuracy_errors(
    predictions: NDArray[np.int64], accuracies: NDArray[np.float64], split: Split, groups: Groups
) -> dict[str, float]:
    """Return the standard errors of the balanced accuracy and of the accuracy of each shot group."""
    correct = (predictions == split.labels).astype(np.float64)
    variances = mean_variances(correct, split.labels, split.groups, len(accuracies))
    found = {"balanced_accuracy": balanced_standard_error(accuracies, variances)} | {
        f"{name}_accuracy": balanced_standard_error(accuracies[mask], variances[mask])
        for name, mask in groups.as_dict().items()
    }
    return {name: error for name, error in found.items() if error is not None}


def _under(
    predictor: Predictor, pairs: EkldSet, num_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], dict[str, float]]:
    """Return eKLD, right eKLD and consistency of each class, and standard errors, under the transformations."""
    count, transformations = pairs.transformed.shape[:2]
    log_p = predictor(pairs.images)
    log_q = predictor(pairs.transformed.reshape(count * transformations, *pairs.images.shape[1:]))
    log_q = log_q.view(count, transformations, -1)
    labels = np.asarray(pairs.labels)
    measures = {"ekld": expected_kl, "consistency": consistency}
    measured = {name: measure(log_p, log_q).cpu().numpy() for name, measure in measures.items()}
    right = log_p.argmax(-1).cpu().numpy() == labels
    means = {name: per_class_mean(values, labels, num_classes) for name, values in measured.items()}
    found = {
        name: balanced_standard_error(means[name], mean_variances(values, labels, pairs.groups, num_classes))
        for name, values in measured.items()
    }
    errors = {name: error for name, error in found.items() if error is not None}
    right_eklds = per_class_mean(measured["ekld"][right], labels[right], num_classes)
    return means["ekld"], right_eklds, means["consistency"], errors


def _check_transformation(dataset: Dataset, request: EkldRequest, transform: Transform | None) -> None:
    if request.under == "nuisance" and dataset.nuisance == "none":
        raise SpecError(
            "eKLD under the nuisance needs a data set with one, but data.nuisance is none; "
            "measure it under the generator"
        )
    if request.under == "generator" and transform is None:
        raise SpecError("eKLD under the generator needs one, but no transformation is given; choose a generator")


def _true_draws(nuisance: str, seed: int) -> Transform:
    def draw(images: NDArray[np.uint8], clean: NDArray[np.uint8], name: str, index: int) -> NDArray[np.uint8]:
        return true_transform(nuisance, clean, numpy_rng(seed, name, index))

    return draw


def _build(dataset: Dataset, request: EkldRequest, draw: Transform, target: Path) -> None:
    split: Split = getattr(dataset, request.split)
    shuffled = numpy_rng(request.seed, "ekld/rows").permutation(len(split.labels))
    rows = choose_rows(split, shuffled, dataset.num_classes, request.images_per_class)
    images = split.clean[rows]
    shape = (len(rows), request.transformations, *images.shape[1:])
    file = target / "transformed.npy"
    transformed = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    with open(file, "r+b") as opened:  # a full disk is an error here, but kills the process that writes into the map
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    for index in range(request.transformations):
        transformed[:, index] = draw(images, images, f"ekld/{request.split}/{request.seed}", index)
    transformed.flush()
    np.save(target / "images.npy", images)
    np.save(target / "labels.npy", split.labels[rows])
    np.save(target / "groups.npy", np.arange(len(rows)) if split.groups is None else split.groups[rows])


def _groups_digest(split: Split) -> str | None:
    if split.groups is None:
        return None
    return hashlib.blake2b(np.ascontiguousarray(split.groups).data, digest_size=16).hexdigest()
