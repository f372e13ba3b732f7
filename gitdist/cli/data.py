"""``gitdist data stats``: describes a study's data set."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gitdist.cli.console import plain_table, print_line
from gitdist.data.dataset import Dataset, Split, prepare
from gitdist.data.duplicates import Duplicates, OfficialImage, find_duplicates
from gitdist.data.longtail import suggested_threshold
from gitdist.data.sources import row_names
from gitdist.data.splits import name_first
from gitdist.errors import StudyError
from gitdist.generator.grid import draw_rows, save_grid, spread
from gitdist.generator.munit.networks import fitting_downsamplings
from gitdist.networks import fitting_networks
from gitdist.spec import DataSpec, StudySpec
from gitdist.study.files.layout import StudyPaths, open_store

_BAR = 24  # characters of the longest bar
_FEW_VALIDATION = 5  # images of a class, below which its validation accuracy is too imprecise
_PAIRS_SHOWN = 5
_CLASSES_NAMED = 10


def show_stats(spec: StudySpec, results: Path, console: Console, thumbnails: Path | None = None) -> None:
    """Print class sizes, splits, pixel statistics, fitting networks and duplicates; write the PNG ``thumbnails``."""
    dataset = prepare(spec.data, open_store(StudyPaths.at(results, spec.name), spec))
    console.print(_classes(dataset))
    for name, value in _facts(dataset).items():
        print_line(console, f"{name}: {value}")
    for note in dataset.notes:
        print_line(console, f"note: {note}")
    for line in (*_validation_warnings(dataset), *_warnings(find_duplicates(dataset), spec.data, dataset)):
        print_line(console, line, style="yellow")
    if thumbnails is not None:
        try:
            save_grid(thumbnail_sheet(dataset), thumbnails)
        except (OSError, ValueError) as error:
            raise StudyError(
                f"the sheet cannot be written to {thumbnails} ({error}); choose another --thumbnails FILE.png"
            ) from None
        print_line(console, f"{thumbnails}: one row per class, its first training images")


def thumbnail_sheet(dataset: Dataset, images_per_class: int = 10) -> NDArray[np.uint8]:
    """Return a sheet of the first training images, RGB uint8 ``[H, W, 3]``: a row per class, the largest on top.

    If all rows have more than ``PICTURE_BYTES``, classes are left out at equal distances.
    """
    columns = min(images_per_class, int(dataset.class_sizes.max()))
    order = (-dataset.class_sizes).argsort(kind="stable")
    order = order[spread(len(order), columns * math.prod(dataset.image_shape))]
    cells = np.full((len(order), columns, *dataset.image_shape), 255, dtype=np.uint8)
    for row, label in enumerate(order):
        images = dataset.train.images[np.flatnonzero(dataset.train.labels == label)[:columns]]
        cells[row, : len(images)] = images
    names = [f"{dataset.class_names[label]}\n{dataset.class_sizes[label]:,} images" for label in order]
    return draw_rows(cells, names)


def _facts(dataset: Dataset) -> dict[str, str]:
    splits = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    threshold = suggested_threshold(dataset.class_sizes, dataset.groups)
    halvings = fitting_downsamplings(dataset.image_shape)
    code = "x".join(str(side >> halvings) for side in dataset.image_shape[1:])
    return {
        "images": ", ".join(f"{name} {len(split.labels):,}" for name, split in splits.items()),
        "shape": "x".join(str(side) for side in dataset.image_shape) + " (channels x height x width), uint8",
        "nuisance": dataset.nuisance,
        "shot groups": dataset.groups.rule,
        "mean": ", ".join(f"{value:.4f}" for value in dataset.mean),
        "std": ", ".join(f"{value:.4f}" for value in dataset.std),
        "fingerprint": dataset.fingerprint,
        "files": str(dataset.directory),
        "suggested K": "none, every class is many-shot"
        if threshold is None
        else f"{threshold:,}: above every class that is not many-shot, so that all of these are augmented "
        "(published: 500 for CIFAR-10-LT, 100 for CIFAR-100-LT, 25 for GTSRB-LT)",
        "fitting networks": f"trial.network {' or '.join(fitting_networks(dataset.image_shape))}; for MUNIT "
        f"generator.num_downsample {halvings} (content codes of {code})",
    }


def _warnings(found: Duplicates, spec: DataSpec, dataset: Dataset) -> Iterator[str]:
    if found.across:
        yield f"duplicates: {len(found.across):,} test images are training or validation images too, byte for byte"
        train, test = row_names(spec) or ((), ())
        for known, tested in found.across[:_PAIRS_SHOWN]:
            yield f"  test {_name(tested, dataset, test)} = training {_name(known, dataset, train)}"
    if found.within:
        yield f"duplicates: {found.within:,} training or validation images equal another one, byte for byte"


def _name(image: OfficialImage, dataset: Dataset, names: tuple[str, ...]) -> str:
    where = names[image.row] if names else f"row {image.row:,}"
    return f"{where} ({dataset.class_names[image.label]})"


def _validation_warnings(dataset: Dataset) -> Iterator[str]:
    counts = np.bincount(dataset.validation.labels, minlength=dataset.num_classes)
    few = [
        f"{name} {count}" for name, count in zip(dataset.class_names, counts, strict=True) if count < _FEW_VALIDATION
    ]
    if few:
        yield (
            f"classes with fewer than {_FEW_VALIDATION} validation images, too few to estimate their accuracy: "
            f"{len(few)} of {dataset.num_classes} ({name_first(few, _CLASSES_NAMED)})"
        )


def _classes(dataset: Dataset) -> Table:
    """Return images per class and split, and the groups per class and split if images are grouped."""
    splits = {"train": dataset.train, "val": dataset.validation, "test": dataset.test}
    images = [np.bincount(split.labels, minlength=dataset.num_classes) for split in splits.values()]
    groups = [_groups_per_class(split, dataset.num_classes) for split in splits.values()]
    grouped = any(counts is not None for counts in groups)
    columns = (*splits, f"groups ({'/'.join(splits)})") if grouped else tuple(splits)
    table = plain_table("class", *columns, "shots", "", right=columns)
    masks = dataset.groups.as_dict()
    largest = int(dataset.class_sizes.max())
    for index in (-dataset.class_sizes).argsort(kind="stable"):
        cells = [f"{counts[index]:,}" for counts in images]
        if grouped:
            cells.append("/".join("-" if counts is None else f"{counts[index]:,}" for counts in groups))
        shots = next(name for name, mask in masks.items() if mask[index])
        bar = "█" * max(1, round(_BAR * int(dataset.class_sizes[index]) / largest))
        table.add_row(Text(dataset.class_names[index]), *cells, shots, bar)
    return table


def _groups_per_class(split: Split, num_classes: int) -> NDArray[np.int64] | None:
    if split.groups is None:
        return None
    pairs = np.unique(np.stack([split.labels, split.groups]), axis=1)
    return np.bincount(pairs[0], minlength=num_classes)
