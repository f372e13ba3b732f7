"""Building a prepared data set: split the official images, apply the nuisance once, write Arrow files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gitdist.data.longtail import size_groups
from gitdist.data.nuisance import transform
from gitdist.data.sources.base import Source
from gitdist.data.splits import split_rows
from gitdist.errors import DataError
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec

DATASET_FORMAT = 2
METADATA_KEY = b"gitdist"

_CHUNK = 4096


def build_dataset(source: Source, spec: DataSpec, target: Path) -> None:
    """Write train.arrow, validation.arrow and test.arrow of ``spec`` into ``target``.

    Args:
        source: the official images.
        spec: nuisance, class-size profile, version, validation size and shot groups.
        target: an empty directory.

    Raises:
        DataError: a class has too few images, a group lies in several splits, or the images do not vary.
    """
    rows = split_rows(source, spec)
    train, test = (
        (source.train_images, source.train_labels, source.train_groups),
        (source.test_images, source.test_labels, source.test_groups),
    )
    splits = {
        "train": _split_columns(*train, rows.train),
        "validation": _split_columns(*train, rows.validation),
        "test": _split_columns(*test, np.arange(len(source.test_labels))),
    }
    if spec.nuisance != "none":
        for name, columns in splits.items():
            rng = numpy_rng(spec.version, f"data/nuisance/{name}")
            columns["clean"] = columns["image"]
            columns["image"] = transform(spec.nuisance, columns["clean"], rng)
    metadata = _metadata(source, spec, splits, rows.notes)
    for name, columns in splits.items():
        _write(target / f"{name}.arrow", columns, metadata)


def _split_columns(
    images: NDArray[np.uint8], labels: NDArray[np.int64], groups: NDArray[np.int64] | None, rows: NDArray[np.int64]
) -> dict[str, Any]:
    columns = {"image": images[rows], "label": labels[rows], "source": rows}
    return columns if groups is None else {**columns, "group": groups[rows]}


def _metadata(
    source: Source, spec: DataSpec, splits: Mapping[str, Mapping[str, NDArray[Any]]], notes: Sequence[str]
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
    """Return mean and standard deviation per channel in 0..1, exact through the histogram of the 256 levels."""
    levels = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[1]):
        chunks = (images[start : start + _CHUNK, channel] for start in range(0, len(images), _CHUNK))
        histogram = sum(np.bincount(chunk.ravel(), minlength=256) for chunk in chunks)
        mean = float(np.average(levels, weights=histogram))
        means.append(mean)
        deviations.append(float(np.sqrt(np.average((levels - mean) ** 2, weights=histogram))))
    if min(deviations) == 0:
        channel = int(np.argmin(deviations))
        raise DataError(f"training images must vary, but in {name} all pixels of channel {channel} are one value")
    return means, deviations


def _fingerprint(class_names: tuple[str, ...], nuisance: str, splits: Mapping[str, Mapping[str, NDArray[Any]]]) -> str:
    state = hashlib.blake2b("\0".join([nuisance, *class_names]).encode(), digest_size=16)
    for columns in splits.values():
        for name in sorted(columns):
            state.update(f"{name}{columns[name].shape}".encode())
            state.update(np.ascontiguousarray(columns[name]).data)
    return state.hexdigest()


def _write(file: Path, columns: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write one record batch, so that every column is one contiguous run of bytes in the file."""
    arrays = {name: _arrow(column) for name, column in columns.items()}
    batch = pa.RecordBatch.from_pydict(arrays)
    batch = batch.replace_schema_metadata({METADATA_KEY: json.dumps(metadata).encode()})
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _arrow(column: NDArray[Any]) -> pa.Array:
    if column.ndim == 1:
        return pa.array(column)
    return pa.FixedSizeListArray.from_arrays(pa.array(column.reshape(-1)), int(np.prod(column.shape[1:])))
