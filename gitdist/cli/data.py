"""``gitdist data ls | stats``: the sources at hand, and what a study's data set looks like."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from gitdist.data.dataset import Dataset, prepare
from gitdist.data.sources import list_sources as find_sources
from gitdist.spec import StudySpec
from gitdist.study.paths import StudyPaths, open_store

_BAR = 40


def list_sources(console: Console) -> None:
    """Print each source with where its files are, or what to do to have them."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("source", "where"):
        table.add_column(header, overflow="fold")
    for name, where in find_sources().items():
        table.add_row(name, where)
    console.print(table)


def show_stats(spec: StudySpec, results: Path, console: Console) -> None:
    """Print class sizes, shot groups, split sizes and pixel statistics, preparing the data set if need be."""
    dataset = prepare(spec.data, open_store(StudyPaths(results.resolve(), spec.name), spec))
    console.print(_classes(dataset))
    splits = {"training": dataset.train, "validation": dataset.validation, "test": dataset.test}
    lines = {
        "images": ", ".join(f"{name} {len(split.labels):,}" for name, split in splits.items()),
        "shape": "x".join(str(side) for side in dataset.image_shape) + " (channels x height x width), uint8",
        "nuisance": dataset.nuisance,
        "shot groups": dataset.groups.rule,
        "mean": ", ".join(f"{value:.4f}" for value in dataset.mean),
        "std": ", ".join(f"{value:.4f}" for value in dataset.std),
        "fingerprint": dataset.fingerprint,
        "files": str(dataset.directory),
    }
    for name, value in lines.items():
        console.print(f"{name}: {value}", highlight=False, soft_wrap=True)


def _classes(dataset: Dataset) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header, justify in (("class", "left"), ("images", "right"), ("group", "left"), ("", "left")):
        table.add_column(header, justify=justify)  # type: ignore[arg-type]
    masks = dataset.groups.as_dict()
    largest = int(dataset.class_sizes.max())
    for index in (-dataset.class_sizes).argsort(kind="stable"):
        size = int(dataset.class_sizes[index])
        group = next(name for name, mask in masks.items() if mask[index])
        table.add_row(dataset.class_names[index], f"{size:,}", group, "█" * max(1, round(_BAR * size / largest)))
    return table
