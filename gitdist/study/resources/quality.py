"""Measures a study's generator on validation images, which neither it nor the reference classifier was trained on.

validation images --generator--> draws ---+--> variation, and its ratio to that of the true nuisance's draws
                  --true T-----> draws ---+--> reference classifier of all classes: share with the image's class
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gitdist import bounds
from gitdist.bounds import rows_within
from gitdist.data.dataset import Dataset, Split
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
from gitdist.trial.ekld import choose_indices
from gitdist.trial.evaluation import Predictor
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
    labels = split.labels[indices]
    predictor = Predictor(reference.model, reference.dataset, compute)
    parts = _parts(indices, draws, dataset)

    def measure(drawing: Generator, name: str) -> _Measurement:
        return _measure(_drawn(drawing, split, parts, draws, seed, name), predictor, labels, dataset)

    has_nuisance = dataset.nuisance != "none"
    own = measure(generator, "quality/draws")
    true = measure(OracleGenerator(dataset.nuisance), "quality/true") if has_nuisance else None
    with torch.inference_mode():
        answers = predictor.classes(split.images[part] for part in parts)
    return Quality(
        images=len(indices),
        draws=draws,
        generator=own.variation,
        true=true.variation if true else None,
        kept_images=kept_shares(answers[:, None], labels, dataset.num_classes),
        kept_draws=own.kept,
        kept_true=true.kept if true else None,
    )


@dataclass(frozen=True, eq=False)
class _Measurement:
    variation: Variation
    kept: NDArray[np.float64]


Drawn = tuple[NDArray[np.uint8], NDArray[np.uint8]]  # images before the nuisance [k, C, H, W], draws [k, D, C, H, W]


def _parts(indices: NDArray[np.int64], draws: int, dataset: Dataset) -> list[NDArray[np.int64]]:
    """Divide images into parts whose draws are held at once; all but the last are whole batches."""
    step = rows_within(bounds.CHUNK_BYTES, draws * math.prod(dataset.image_shape), _BATCH_SIZE)
    return [indices[low : low + step] for low in range(0, len(indices), step)]


def _drawn(
    generator: Generator, split: Split, parts: Sequence[NDArray[np.int64]], draws: int, seed: int, name: str
) -> Iterator[Drawn]:
    first = 0
    for part in parts:
        images, clean = split.images[part], split.clean[part]
        drawn = np.empty((len(part), draws, *images.shape[1:]), np.uint8)
        for low in range(0, len(part), _BATCH_SIZE):
            batch = slice(low, low + _BATCH_SIZE)
            codes = generator.encode(torch.tensor(images[batch]), torch.tensor(clean[batch]))
            for index in range(draws):
                drawn[batch, index] = generator.draw(codes, numpy_rng(seed, name, first + low, index)).numpy()
        first += len(part)
        yield clean, drawn


def _measure(drawn: Iterable[Drawn], predictor: Predictor, labels: NDArray[np.int64], dataset: Dataset) -> _Measurement:
    nuisance = dataset.nuisance
    found: dict[str, list[NDArray[np.float64]]] = defaultdict(list)

    def draws_of_parts() -> Iterator[NDArray[np.uint8]]:
        for clean, draws in drawn:
            found["pixel_std"].append(pixel_deviations(draws))
            found["pairwise_l1"].append(pairwise_distances(draws))
            if nuisance in STATISTICS:
                found["nuisance_std"].append(nuisance_deviations(nuisance, draws, clean))
            if nuisance == "background":
                found["object_std"].append(object_deviations(draws, clean))
            yield draws.reshape(-1, *draws.shape[2:])

    def mean(name: str) -> float | None:
        """Return the mean over the classes that have a value; None if none has."""
        values = np.concatenate(found[name]) if name in found else np.empty(0)
        known = ~np.isnan(values)
        if not known.any():
            return None
        return balanced_mean(per_class_mean(values[known], labels[known], dataset.num_classes))

    with torch.inference_mode():
        answers = predictor.classes(draws_of_parts())
    pixel_std, pairwise_l1 = mean("pixel_std"), mean("pairwise_l1")
    assert pixel_std is not None and pairwise_l1 is not None, "a validation split has images"
    variation = Variation(
        pixel_std=pixel_std,
        pairwise_l1=pairwise_l1,
        nuisance_std=mean("nuisance_std"),
        object_std=mean("object_std"),
    )
    return _Measurement(variation, kept_shares(answers.reshape(len(labels), -1), labels, dataset.num_classes))


def _none_if_nan(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
