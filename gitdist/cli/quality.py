"""``gitdist generator quality``: how well a study's generator keeps classes and varies the rest, as tables or JSON."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gitdist.cli.generator import ready_generator
from gitdist.compute import Compute, set_threads
from gitdist.data.dataset import prepare
from gitdist.generator.quality import STATISTICS
from gitdist.spec import StudySpec
from gitdist.study.display import open_display
from gitdist.study.paths import StudyPaths, open_store
from gitdist.study.quality import Quality, measure_quality
from gitdist.trial.reference import reference_classifier
from gitdist.trial.training import EpochRow


def show_quality(
    spec: StudySpec, results: Path, console: Console, *, images: int, draws: int, epochs: int | None, as_json: bool
) -> None:
    """Measure a study's generator and print the figures.

    Args:
        spec: the study.
        results: the results directory with the store.
        console: where to print.
        images: validation images a class.
        draws: draws an image.
        epochs: of the classifier that judges; None = as many as see 60,000 images.
        as_json: one JSON object instead of tables.

    Raises:
        StudyError: the generator is not trained yet, or training the classifier diverged.
    """
    set_threads(spec.resources.training.cpu)
    store = open_store(StudyPaths(results.resolve(), spec.name), spec)
    dataset = prepare(spec.data, store)
    generator = ready_generator(spec, dataset, store)
    compute = Compute.resolve(spec.trial.precision)
    with open_display(Console(stderr=True), 0, ()) as display:

        def report(row: EpochRow, total: int) -> None:
            detail = f"loss {row['train/loss']:.3f}"
            display.progress("training the classifier that judges", row["epoch"], total, detail)

        reference = reference_classifier(spec.data, spec.trial.network, epochs, store, compute, report)
    quality = measure_quality(generator, dataset, reference, compute, images=images, draws=draws, seed=spec.stream.seed)
    judge = {"network": spec.trial.network, "epochs": reference.epochs, "images": len(reference.dataset.train.labels)}
    if as_json:
        figures = {"study": spec.name, "generator": spec.generator.kind, "nuisance": dataset.nuisance, "judge": judge}
        console.print_json(json.dumps(figures | quality.as_json(dataset.class_names)), indent=2)
        return
    console.print(_variation_table(quality, dataset.nuisance))
    console.print(_kept_table(quality, dataset.class_names))
    told = (
        f"{quality.images} validation images, {quality.draws} draws of each; judged by {judge['network']}, trained "
        f"{judge['epochs']} epochs on {judge['images']:,} images of all classes, the same nuisance among them"
    )
    console.print(told, highlight=False, soft_wrap=True)


def _variation_table(quality: Quality, nuisance: str) -> Table:
    names = {
        "pixel_std": "pixel, std over draws",
        "pairwise_l1": "pixel, mean distance of two draws (L1)",
        "nuisance_std": f"{STATISTICS.get(nuisance)}, std over draws",
        "object_std": "object level, std over draws",
    }
    own, ratios = asdict(quality.generator), quality.ratios() or {}
    true = asdict(quality.true) if quality.true else {}
    table = Table(title="variation between the draws of an image (levels 0..255)", title_justify="left")
    table.add_column("")
    for header in ("generator", "true nuisance", "ratio"):
        table.add_column(header, justify="right")
    for name, title in names.items():
        if own[name] is not None:
            cells = (own.get(name), true.get(name), ratios.get(name))
            formats = (".2f", ".2f", ".3f")
            table.add_row(title, *(_cell(cell, form) for cell, form in zip(cells, formats, strict=True)))
    return table


def _kept_table(quality: Quality, class_names: tuple[str, ...]) -> Table:
    table = Table(title="answered as the image's class (share)", title_justify="left")
    table.add_column("class")
    columns = {"images themselves": quality.kept_images, "draws": quality.kept_draws, "true draws": quality.kept_true}
    shares = {header: share for header, share in columns.items() if share is not None}
    for header in shares:
        table.add_column(header, justify="right")
    for index, name in enumerate(class_names):
        table.add_row(escape(name), *(_cell(share[index], ".3f") for share in shares.values()))
    table.add_section()
    table.add_row("mean", *(_cell(float(np.nanmean(share)), ".3f") for share in shares.values()))
    return table


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or np.isnan(value) else format(value, form)
