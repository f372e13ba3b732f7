"""The images that eKLD and consistency are measured on, each with its fixed transformations.

They are an artifact: built once a study and read by all trials, so all classifiers answer for the same x'.

    up to EKLD_BYTES   transformed.npy, memory-mapped by all trials
    above              not stored: each evaluation draws them again, part by part, by the seeds in draws.json
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from gitdist import bounds
from gitdist.bounds import rows_within
from gitdist.data.dataset import Dataset, Split
from gitdist.data.nuisance import apply_nuisance, draw_parameters
from gitdist.errors import SpecError, StoreError, first_line
from gitdist.seeds import numpy_rng
from gitdist.store import Store
from gitdist.stream.blocks import ENCODE_BATCH

Transform = Callable[[NDArray[np.uint8], NDArray[np.uint8], str, int, int], NDArray[np.uint8]]
"""``transform(images, clean, name, index, first)``: a draw of every image, uint8 ``[N, C, H, W]``; name and index seed
it. The images are those from ``first`` on, a multiple of ``ENCODE_BATCH``, of a longer list."""

Draw = Callable[[NDArray[np.uint8], int, int], NDArray[np.uint8]]
"""``draw(images, index, first)``: transformation ``index`` of a set's images from ``first`` on."""

Map = np.memmap[Any, np.dtype[np.uint8]]

_FORMAT = 2
_DRAWS_FILE = "draws.json"


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
class Draws:
    """Transformations that are drawn when they are read: ``transformations`` of each image, in parts of images.

    The number of images in a part is a multiple of ``multiple``.
    """

    draw: Draw
    transformations: int
    multiple: int

    def parts(self, images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """Yield the transformations of consecutive images, uint8 ``[k, t, C, H, W]``."""
        image_bytes = math.prod(images.shape[1:])
        step = rows_within(bounds.CHUNK_BYTES, self.transformations * image_bytes, self.multiple)
        for first in range(0, len(images), step):
            part = np.asarray(images[first : first + step])  # no map: it may be sent to a server
            drawn = np.empty((len(part), self.transformations, *images.shape[1:]), np.uint8)
            for index in range(self.transformations):
                drawn[:, index] = self.draw(part, index, first)
            yield drawn


@dataclass(frozen=True, kw_only=True, eq=False)
class EkldSet:
    """Images before and after the transformation, read-only.

    ``images`` uint8 ``[n, C, H, W]``; ``transformed`` uint8 ``[n, t, C, H, W]``, ``transformed[i, j]`` being
    transformation j of image i, or ``Draws`` if they are not stored; ``labels`` int64 ``[n]``; ``groups`` int64
    ``[n]``, the number of the image if the split has no groups; ``directory`` has their files.
    """

    directory: Path
    images: NDArray[np.uint8]
    transformed: NDArray[np.uint8] | Draws
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]

    @classmethod
    def open(cls, directory: Path, transform: Transform | None = None) -> "EkldSet":
        """Memory-map the set that ``ekld_set`` built in ``directory``.

        Args:
            directory: of its files.
            transform: draws under the generator; needed if the set has transformations under it and stores none.

        Raises:
            StoreError: a file is missing or not whole.
            SpecError: ``transform`` is missing.
        """
        try:
            names = ["images", "labels", "groups"]
            file = directory / _DRAWS_FILE
            values = json.loads(file.read_bytes()) if file.exists() else None
            names += [] if values else ["transformed"]
            arrays = {name: np.load(directory / f"{name}.npy", mmap_mode="r") for name in names}
            if values:
                nuisance, request = values["nuisance"], EkldRequest(**values["request"])
        except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
            raise StoreError(
                f"the images that eKLD is measured on must be whole, but {directory} is not ({first_line(error)}); "
                "run the same command again, which builds them anew"
            ) from error
        if values:
            arrays["transformed"] = _draws(nuisance, request, len(arrays["labels"]), transform)
        return cls(directory=directory, **arrays)

    @property
    def transformations(self) -> int:
        """The number of transformations of each image, t."""
        return self.transformed.transformations if isinstance(self.transformed, Draws) else self.transformed.shape[1]

    def transformed_parts(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the transformations of consecutive images, uint8 ``[k, t, C, H, W]``."""
        if isinstance(self.transformed, Draws):
            yield from self.transformed.parts(self.images)
        else:
            yield self.transformed


def ekld_set(dataset: Dataset, request: EkldRequest, store: Store, transform: Transform | None = None) -> EkldSet:
    """Return the pairs of ``request``, out of the store or built into it.

    Args:
        dataset: the source of the images; they are its untransformed ones.
        request: split, numbers, seed and T.
        store: where the set is kept.
        transform: draws under the generator; called for each transformation of consecutive images.

    Raises:
        SpecError: T is the nuisance and the data set has none, or T is the generator and ``transform`` is missing.
    """
    _check(dataset.nuisance, request, transform)
    groups = getattr(dataset, request.split).groups
    key = {
        "format": _FORMAT,
        "dataset": dataset.fingerprint,
        "groups": None if groups is None else _digest(groups),
        "nuisance": dataset.nuisance,
        **asdict(request),
    }
    directory = store.get_or_build("ekld", key, lambda target, scratch: _build(dataset, request, transform, target))
    return EkldSet.open(directory, transform)


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


def _check(nuisance: str, request: EkldRequest, transform: Transform | None) -> None:
    if request.under == "generator" and transform is None:
        raise SpecError("eKLD under the generator needs one, but no transformation is given; choose a generator")
    if request.under == "nuisance" and nuisance == "none":
        raise SpecError(
            "eKLD under the nuisance needs a data set with one, but data.nuisance is none; "
            "measure it under the generator"
        )


def _draws(nuisance: str, request: EkldRequest, count: int, transform: Transform | None) -> Draws:
    """Return the transformations of the set of ``request``, which has ``count`` images."""
    _check(nuisance, request, transform)
    name = f"ekld/{request.split}/{request.seed}"
    match request.under:
        case "generator":
            assert transform is not None, "this has been checked"

            def draw(images: NDArray[np.uint8], index: int, first: int) -> NDArray[np.uint8]:
                return transform(images, images, name, index, first)

            multiple = ENCODE_BATCH
        case "nuisance":
            rngs = [numpy_rng(request.seed, name, index) for index in range(request.transformations)]
            parameters = [draw_parameters(nuisance, count, rng) for rng in rngs]

            def draw(images: NDArray[np.uint8], index: int, first: int) -> NDArray[np.uint8]:
                own = parameters[index][first : first + len(images)]
                return apply_nuisance(nuisance, from_dlpack(np.ascontiguousarray(images)), own).numpy()

            multiple = 1
        case unknown:
            assert_never(unknown)
    return Draws(draw=draw, transformations=request.transformations, multiple=multiple)


def _build(dataset: Dataset, request: EkldRequest, transform: Transform | None, target: Path) -> None:
    split: Split = getattr(dataset, request.split)
    shuffled = numpy_rng(request.seed, "ekld/rows").permutation(len(split.labels))
    indices = choose_indices(split, shuffled, dataset.num_classes, request.images_per_class)
    shape = (len(indices), *split.clean.shape[1:])
    images = _create(target / "images.npy", shape)
    step = rows_within(bounds.CHUNK_BYTES, math.prod(shape[1:]))
    for start in range(0, len(indices), step):
        images[start : start + step] = split.clean[indices[start : start + step]]
    images.flush()
    if math.prod(shape) * request.transformations <= bounds.EKLD_BYTES:
        transformed = _create(target / "transformed.npy", (shape[0], request.transformations, *shape[1:]))
        first = 0
        for part in _draws(dataset.nuisance, request, len(indices), transform).parts(images):
            transformed[first : first + len(part)] = part
            first += len(part)
        transformed.flush()
    else:
        values = {"nuisance": dataset.nuisance, "request": asdict(request)}
        (target / _DRAWS_FILE).write_text(json.dumps(values))
    np.save(target / "labels.npy", split.labels[indices])
    np.save(target / "groups.npy", np.arange(len(indices)) if split.groups is None else split.groups[indices])


def _create(file: Path, shape: tuple[int, ...]) -> Map:
    created: Map = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
    with open(file, "r+b") as opened:  # a full disk is an error here, but ends the process that writes into the map
        os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return created


def _earlier_of_group(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return how many images before each one are of its group, int64 ``[N]``."""
    by_group = np.argsort(groups, kind="stable")
    _, starts, counts = np.unique(groups[by_group], return_index=True, return_counts=True)
    earlier = np.empty(len(groups), dtype=np.int64)
    earlier[by_group] = np.arange(len(groups)) - np.repeat(starts, counts)
    return earlier


def _digest(groups: NDArray[np.int64]) -> str:
    return hashlib.blake2b(np.ascontiguousarray(groups).data, digest_size=16).hexdigest()
