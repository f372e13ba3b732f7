"""A prepared long-tailed data set: arrays of three splits, memory-mapped from Arrow files, with their fingerprint."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gitdist.data.build import DATASET_FORMAT, METADATA_KEY, build_dataset
from gitdist.data.longtail import Groups
from gitdist.data.sources import load_source, source_digest
from gitdist.errors import DataError
from gitdist.spec import DataSpec
from gitdist.store import Store

_IN_DIGEST = {"source", "path", "exclude", "image_size", "test_share"}  # what they do, the source's digest has


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Rows of one split, read-only views of its memory-mapped file.

    ``images`` uint8 ``[N, C, H, W]`` carry the nuisance and ``clean`` the same images before it (the same array where
    there is none); ``labels`` int64 ``[N]``; ``source`` int64 ``[N]`` is the row in the official split, counted
    without the classes that are left out. ``groups`` int64 ``[N]`` is the index of the object, patient or scene
    that an image shows; None = every image is its own group.
    """

    images: NDArray[np.uint8]
    clean: NDArray[np.uint8]
    labels: NDArray[np.int64]
    source: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A prepared data set; its splits are mapped when first used.

    ``class_sizes`` int64 ``[C]`` are the training images of each class; ``image_shape`` is (C, H, W); ``mean`` and
    ``std`` are those of the training images in 0..1, per channel; ``fingerprint`` is the hash of all arrays;
    ``notes`` say what was done to the source's files.
    """

    directory: Path
    fingerprint: str
    class_names: tuple[str, ...]
    class_sizes: NDArray[np.int64]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    nuisance: str
    groups: Groups
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, directory: Path) -> "Dataset":
        """Open the data set that ``prepare`` left in ``directory``.

        Raises:
            DataError: there is none, or its files are of another form.
        """
        table = _map_table(Path(directory) / "train.arrow")
        try:
            return cls(directory=Path(directory), **_parse_metadata(table.schema.metadata or {}))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"a prepared data set must carry gitdist's metadata, but {directory} does not ({error!r}); "
                "prepare it anew"
            ) from error

    @property
    def num_classes(self) -> int:
        """The number of classes, C."""
        return len(self.class_names)

    @cached_property
    def train(self) -> Split:
        """The training rows, ordered by class."""
        return self._split("train")

    @cached_property
    def validation(self) -> Split:
        """The validation rows, ordered by class; classes differ in their number, and a class may have none."""
        return self._split("validation")

    @cached_property
    def test(self) -> Split:
        """The official test rows in official order."""
        return self._split("test")

    def _split(self, name: str) -> Split:
        table = _map_table(self.directory / f"{name}.arrow")
        columns = {name: _flat(table.column(name)) for name in table.column_names}
        images = columns["image"].reshape(-1, *self.image_shape)
        clean = columns["clean"].reshape(-1, *self.image_shape) if "clean" in columns else images
        return Split(images=images, clean=clean, labels=columns["label"], source=columns["source"])


def prepare(spec: DataSpec, store: Store) -> Dataset:
    """Return the data set of ``spec``, out of the store or built into it.

    Args:
        spec: source, nuisance, class-size profile, version, validation share and shot groups.
        store: where prepared data sets are kept.

    Raises:
        DataError: the source is missing or damaged, or a class has too few images.
    """
    key = {
        "format": DATASET_FORMAT,
        "digest": source_digest(spec),
        **spec.model_dump(mode="json", exclude=_IN_DIGEST),
    }
    return Dataset.open(
        store.get_or_build("dataset", key, lambda target, _: build_dataset(load_source(spec), spec, target))
    )


def _parse_metadata(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    values = json.loads(metadata[METADATA_KEY])
    channels, height, width = values["image_shape"]
    masks = {name: np.asarray(values["groups"][name], dtype=np.bool_) for name in ("many", "medium", "few")}
    return {
        "fingerprint": str(values["fingerprint"]),
        "class_names": tuple(values["class_names"]),
        "class_sizes": np.asarray(values["class_sizes"], dtype=np.int64),
        "image_shape": (int(channels), int(height), int(width)),
        "mean": tuple(values["mean"]),
        "std": tuple(values["std"]),
        "nuisance": str(values["nuisance"]),
        "groups": Groups(**masks, rule=str(values["groups"]["rule"])),
        "notes": tuple(values.get("notes", ())),
    }


def _map_table(file: Path) -> pa.RecordBatch:
    """Map a file; the batch and all views of it keep the map alive."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"a prepared data set must be whole, but {file} cannot be read ({reason}); prepare it anew"
        ) from error


def _flat(column: pa.Array) -> NDArray[Any]:
    values = column.values if pa.types.is_fixed_size_list(column.type) else column
    array: NDArray[Any] = values.to_numpy(zero_copy_only=True)
    return array
