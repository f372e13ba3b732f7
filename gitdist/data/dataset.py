"""A prepared long-tailed data set: three splits in Arrow files that are memory-mapped, and their fingerprint.

official images -> rows of training and validation -> nuisance, applied once -> {train, validation, test}.arrow

Images are copied and transformed in chunks; between two steps, those of a large split lie in a temporary file.
"""

import hashlib
import json
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch.utils.dlpack import from_dlpack

from gitdist import bounds
from gitdist.bounds import rows_within
from gitdist.data import DATASET_FORMAT
from gitdist.data.longtail import Groups, size_groups
from gitdist.data.nuisance import apply_nuisance, draw_parameters
from gitdist.data.sources import load_source, source_digest
from gitdist.data.sources.base import SourceImages
from gitdist.data.splits import split_rows
from gitdist.errors import DataError, first_line
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec
from gitdist.store import Store
from gitdist.store.layout import ARRAYS

_METADATA_KEY = b"gitdist"
_IN_SOURCE_DIGEST = {
    *("source", "path", "exclude", "group", "image_size", "test_share"),
    *("train", "test", "table", "columns", "classes", "target", "options"),
}

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Rows of one split, read-only views of its memory-mapped file."""

    images: NDArray[np.uint8]  # [N, C, H, W], with the nuisance
    clean: NDArray[np.uint8]  # [N, C, H, W], before the nuisance; the same array if there is none
    labels: NDArray[np.int64]  # [N]
    source: NDArray[np.int64]  # [N], row in the official split without the excluded classes
    groups: NDArray[np.int64] | None = None  # [N], such as the physical object; None = each image is its own group


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """A prepared data set; each split is mapped at first use."""

    directory: Path
    fingerprint: str  # hash of all arrays
    class_names: tuple[str, ...]
    class_sizes: NDArray[np.int64]  # [C], training images of each class
    image_shape: tuple[int, int, int]  # (C, H, W)
    mean: tuple[float, ...]  # of the training images in 0..1, per channel
    std: tuple[float, ...]
    nuisance: str
    groups: Groups
    notes: tuple[str, ...] = ()  # what was done to the source's files, and how the splits fall short of the spec

    @classmethod
    def open(cls, directory: Path) -> "Dataset":
        """Open the data set that ``prepare`` wrote into ``directory``."""
        table = _map_table(Path(directory) / "train.arrow")
        try:
            values = json.loads(table.schema.metadata[_METADATA_KEY])
            channels, height, width = values["image_shape"]
            masks = {name: np.asarray(values["groups"][name], np.bool_) for name in ("many", "medium", "few")}
            return cls(
                directory=Path(directory),
                fingerprint=values["fingerprint"],
                class_names=tuple(values["class_names"]),
                class_sizes=np.asarray(values["class_sizes"], dtype=np.int64),
                image_shape=(channels, height, width),
                mean=tuple(values["mean"]),
                std=tuple(values["std"]),
                nuisance=values["nuisance"],
                groups=Groups(**masks, rule=values["groups"]["rule"]),
                notes=tuple(values.get("notes", ())),
            )
        except (KeyError, TypeError, ValueError) as error:
            message = f"{directory} is not a prepared data set ({error!r}); delete it to prepare it again"
            raise DataError(message) from error

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
        """The validation rows, ordered by class; a class may have none, see ``notes``."""
        return self._split("validation")

    @cached_property
    def test(self) -> Split:
        """The official test rows in official order."""
        return self._split("test")

    def _split(self, name: str) -> Split:
        table = _map_table(self.directory / f"{name}.arrow")
        columns = {name: _to_numpy(table.column(name)) for name in table.column_names}
        images = columns["image"].reshape(-1, *self.image_shape)
        return Split(
            images=images,
            clean=columns["clean"].reshape(-1, *self.image_shape) if "clean" in columns else images,
            labels=columns["label"],
            source=columns["source"],
            groups=columns.get("group"),
        )


def prepare(spec: DataSpec, store: Store) -> Dataset:
    """Return the data set of ``spec`` from the store, building it if it is missing.

    Raises:
        DataError: the source is missing or damaged, a class has too few images, or a group lies in several splits.
    """
    spec = _after_move(spec, store)
    digest = source_digest(spec)

    def build(target: Path, scratch: Path) -> None:
        source = load_source(spec)
        if source.digest() != digest:
            raise DataError(f"the files of {source.name} must not change while they are read, but did; run again")
        build_dataset(source, spec, target)

    settings = spec.model_dump(mode="json", exclude=_IN_SOURCE_DIGEST)
    settings["validation"] = spec.validation_share  # a list is in the digest
    key = {"format": DATASET_FORMAT, "digest": digest, **settings}
    return Dataset.open(store.get_or_build("dataset", key, build))


def _after_move(spec: DataSpec, store: Store) -> DataSpec:
    """Return the spec with the new path of arrays in the store, if the results were moved since they were stored."""
    old = Path(spec.path or "")
    moved = store.root / ARRAYS / old.name
    if spec.source == "npz" and old.parent.name == ARRAYS and not old.exists() and moved.is_dir():
        return spec.model_copy(update={"path": str(moved)})
    return spec


def build_dataset(source: SourceImages, spec: DataSpec, target: Path) -> None:
    """Write train.arrow, validation.arrow and test.arrow of ``spec`` into the empty directory ``target``.

    Raises:
        DataError: a class has too few images, a group lies in several splits, or a channel is constant.
    """
    rows = split_rows(source, spec)
    train = (source.train_images, source.train_labels, source.train_groups)
    test = (source.test_images, source.test_labels, source.test_groups)
    splits = {
        "train": _columns(*train, rows.train, target),
        "validation": _columns(*train, rows.validation, target),
        "test": _columns(*test, np.arange(len(source.test_labels)), target),
    }
    if spec.nuisance != "none":
        for name, columns in splits.items():
            rng = numpy_rng(spec.version, f"data/nuisance/{name}")
            columns["clean"] = columns["image"]
            columns["image"] = _under_nuisance(spec.nuisance, columns["clean"], rng, target)
    metadata = _metadata(source, spec, splits, rows.notes)
    for name, columns in splits.items():
        _write(target / f"{name}.arrow", columns, metadata)


def _columns(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    groups: NDArray[np.int64] | None,
    rows: NDArray[np.int64],
    scratch: Path,
) -> Columns:
    parts = (images[rows[part]] for part in _chunks(len(rows), images))
    image = _collect(parts, (len(rows), *images.shape[1:]), scratch)
    columns: Columns = {"image": image, "label": labels[rows], "source": rows}
    return columns if groups is None else {**columns, "group": groups[rows]}


def _under_nuisance(
    nuisance: str, images: NDArray[np.uint8], rng: np.random.Generator, scratch: Path
) -> NDArray[np.uint8]:
    """Return a draw of the nuisance for each image: what ``nuisance.transform`` returns, without holding it."""
    parameters = draw_parameters(nuisance, len(images), rng)
    parts = (
        apply_nuisance(nuisance, from_dlpack(images[part]), parameters[part]).numpy()
        for part in _chunks(len(images), images)
    )
    return _collect(parts, images.shape, scratch)


def _chunks(count: int, images: NDArray[np.uint8]) -> list[slice]:
    """Return slices that divide ``count`` rows of ``images`` into chunks of ``CHUNK_BYTES``."""
    step = rows_within(bounds.CHUNK_BYTES, math.prod(images.shape[1:]))
    return [slice(start, start + step) for start in range(0, count, step)]


def _collect(parts: Iterable[NDArray[np.uint8]], shape: tuple[int, ...], scratch: Path) -> NDArray[np.uint8]:
    """Return the parts as one array of ``shape``, above a chunk as a map of a file in ``scratch`` without a name."""
    if math.prod(shape) <= bounds.CHUNK_BYTES:
        return np.concatenate(list(parts))
    with tempfile.TemporaryFile(dir=scratch) as file:
        for part in parts:
            file.write(np.ascontiguousarray(part).data)
        file.flush()
        return np.memmap(file, np.uint8, mode="r", shape=shape)


def _metadata(
    source: SourceImages, spec: DataSpec, splits: Mapping[str, Columns], notes: Sequence[str]
) -> dict[str, Any]:
    train = splits["train"]
    sizes = np.bincount(train["label"], minlength=len(source.class_names)).tolist()
    groups = size_groups(sizes, spec.groups)
    mean, std = _channel_statistics(train["image"], source.name)
    return {
        "fingerprint": _fingerprint(source.class_names, spec.nuisance, splits),
        "class_names": source.class_names,
        "class_sizes": sizes,
        "image_shape": train["image"].shape[1:],
        "mean": mean,
        "std": std,
        "nuisance": spec.nuisance,
        "groups": {"rule": groups.rule, **{name: mask.tolist() for name, mask in groups.as_dict().items()}},
        "notes": [*source.notes, *notes],
    }


def _channel_statistics(images: NDArray[np.uint8], name: str) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel in 0..1, computed exactly from a histogram of the 256 levels."""
    levels = np.arange(256) / 255
    histograms = np.zeros((images.shape[1], 256), np.int64)
    for part in _chunks(len(images), images):
        for channel, histogram in enumerate(histograms):
            histogram += np.bincount(images[part, channel].ravel(), minlength=256)
    means, deviations = [], []
    for histogram in histograms:
        mean = float(np.average(levels, weights=histogram))
        means.append(mean)
        deviations.append(float(np.sqrt(np.average((levels - mean) ** 2, weights=histogram))))
    if min(deviations) == 0:
        channel = int(np.argmin(deviations))
        raise DataError(f"training images must vary, but in {name} all pixels of channel {channel} have one value")
    return means, deviations


def _fingerprint(class_names: tuple[str, ...], nuisance: str, splits: Mapping[str, Columns]) -> str:
    state = hashlib.blake2b("\0".join([nuisance, *class_names]).encode(), digest_size=16)
    for columns in splits.values():
        for name in sorted(columns):
            state.update(f"{name}{columns[name].shape}".encode())
            state.update(np.ascontiguousarray(columns[name]).data)
    return state.hexdigest()


def _write(file: Path, columns: Columns, metadata: Mapping[str, Any]) -> None:
    """Write one record batch: each column is contiguous in the file."""
    batch = pa.RecordBatch.from_pydict({name: _to_arrow(column) for name, column in columns.items()})
    batch = batch.replace_schema_metadata({_METADATA_KEY: json.dumps(metadata).encode()})
    options = pa.ipc.IpcWriteOptions(allow_64bit=True)  # a column of images may have more than 2**31 bytes
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)


def _map_table(file: Path) -> pa.RecordBatch:
    """Memory-map a file; the batch and all views of it keep the mapping alive."""
    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).get_batch(0)
    except (OSError, pa.ArrowException) as error:
        message = f"the prepared data set {file} cannot be read ({first_line(error)}); delete it to prepare it again"
        raise DataError(message) from error


def _to_arrow(column: NDArray[Any]) -> pa.Array:
    if column.ndim == 1:
        return pa.array(column)
    return pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), int(np.prod(column.shape[1:])))


def _to_numpy(column: pa.Array) -> NDArray[Any]:
    values = column.values if pa.types.is_fixed_size_list(column.type) else column
    array: NDArray[Any] = values.to_numpy(zero_copy_only=True)
    return array
