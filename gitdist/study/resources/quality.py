"""Measures a study's generator on validation images, which neither it nor the reference classifier was trained on.

validation images --generator--> draws ---+--> variation, and its ratio to that of the true nuisance's draws
                  --true T-----> draws ---+--> reference classifier of all classes: share with the image's class
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gitdist.data.dataset import Dataset
from gitdist.device import Compute
from gitdist.generator.base import Generator
from gitdist.generator.oracle import OracleGenerator
from gitdist.generator.quality import (
    STATISTICS,
    kept_shares,
    nuisance_deviations,
    object_deviations,
    pairwise_distances,
    pixel_deviations,
)
from gitdist.seeds import numpy_rng
from gitdist.trial.evaluation import Predictor, choose_indices
from gitdist.trial.metrics import balanced_mean, per_class_mean
from gitdist.trial.reference import Reference

_BATCH_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Variation:
    """How much the draws of an image differ, in grey levels: mean over classes of the mean over images.

    ``nuisance_std`` is that of the nuisance's own statistic (``STATISTICS``); ``object_std`` that of the object's
    level, which a background does not change. None = undefined or unknown.
    """

    pixel_std: float
    pairwise_l1: float
    nuisance_std: float | None
    object_std: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Quality:
    """How well a generator's draws keep their class, and vary; shares in 0..1 per class, float64 ``[C]``.

    ``true`` and ``kept_true`` are those of draws of the data set's own nuisance; None if it is unknown.
    """

    images: int
    draws: int
    generator: Variation
    true: Variation | None
    kept_images: NDArray[np.float64]
    kept_draws: NDArray[np.float64]
    kept_true: NDArray[np.float64] | None

    def as_json(self, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Return all values as JSON."""
        shares = {"images": self.kept_images, "draws": self.kept_draws}
        shares |= {} if self.kept_true is None else {"true": self.kept_true}
        return {
            "images": self.images,
            "draws_per_image": self.draws,
            "variation": {
                "generator": asdict(self.generator),
                "true": asdict(self.true) if self.true else None,
                "ratio": self.ratios(),
            },
            "label_kept": {
                "mean": {name: float(np.nanmean(share)) for name, share in shares.items()},
                "classes": [
                    {"class": name} | {kind: _none_if_nan(share[index]) for kind, share in shares.items()}
                    for index, name in enumerate(class_names)
                ],
            },
        }

    def ratios(self) -> dict[str, float] | None:
        """Return the generator's variation / the true nuisance's, without statistics that the latter does not vary."""
        if self.true is None:
            return None
        own, true = asdict(self.generator), asdict(self.true)
        return {name: own[name] / true[name] for name in own if true[name]}


def measure_quality(
    generator: Generator,
    dataset: Dataset,
    reference: Reference,
    compute: Compute,
    *,
    images: int,
    draws: int,
    seed: int,
) -> Quality:
    """Measure ``draws`` per image of at most ``images`` validation images per class; ``seed`` is that of the draws.

    Raises:
        TrialFailedError: the classifier's output is not a number.
    """
    split = dataset.validation
    indices = choose_indices(split, np.arange(len(split.labels)), dataset.num_classes, images)
    given, clean, labels = split.images[indices], split.clean[indices], split.labels[indices]
    predictor = Predictor(reference.model, reference.dataset, compute)

    def label_kept(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        with torch.inference_mode():
            predictions = predictor(pixels.reshape(-1, *given.shape[1:])).argmax(1).cpu().numpy()
        return kept_shares(predictions.reshape(len(labels), -1), labels, dataset.num_classes)

    drawn = _draw(generator, given, clean, draws, seed, "quality/draws")
    has_nuisance = dataset.nuisance != "none"
    true = _draw(OracleGenerator(dataset.nuisance), given, clean, draws, seed, "quality/true") if has_nuisance else None
    return Quality(
        images=len(indices),
        draws=draws,
        generator=_variation(drawn, clean, labels, dataset),
        true=None if true is None else _variation(true, clean, labels, dataset),
        kept_images=label_kept(given),
        kept_draws=label_kept(drawn),
        kept_true=None if true is None else label_kept(true),
    )


def _draw(
    generator: Generator, images: NDArray[np.uint8], clean: NDArray[np.uint8], draws: int, seed: int, name: str
) -> NDArray[np.uint8]:
    """Return draws, uint8 ``[N, D, C, H, W]``."""
    drawn = np.empty((len(images), draws, *images.shape[1:]), np.uint8)
    for low in range(0, len(images), _BATCH_SIZE):
        part = slice(low, low + _BATCH_SIZE)
        codes = generator.encode(torch.tensor(images[part]), torch.tensor(clean[part]))
        for index in range(draws):
            drawn[part, index] = generator.draw(codes, numpy_rng(seed, name, low, index)).numpy()
    return drawn


def _variation(
    draws: NDArray[np.uint8], clean: NDArray[np.uint8], labels: NDArray[np.int64], dataset: Dataset
) -> Variation:
    def mean(values: NDArray[np.float64]) -> float | None:
        """Return the mean over the classes that have a value; None if none has."""
        known = ~np.isnan(values)
        return balanced_mean(per_class_mean(values[known], labels[known], dataset.num_classes)) if known.any() else None

    nuisance = dataset.nuisance
    pixel_std, pairwise_l1 = mean(pixel_deviations(draws)), mean(pairwise_distances(draws))
    assert pixel_std is not None and pairwise_l1 is not None, "a validation split has images"
    return Variation(
        pixel_std=pixel_std,
        pairwise_l1=pairwise_l1,
        nuisance_std=mean(nuisance_deviations(nuisance, draws, clean)) if nuisance in STATISTICS else None,
        object_std=mean(object_deviations(draws, clean)) if nuisance == "background" else None,
    )


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
