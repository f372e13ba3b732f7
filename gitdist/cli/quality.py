"""``gitdist generator quality``: whether draws keep their class, and how much they vary, as tables or JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gitdist.cli.console import plain_table, print_line
from gitdist.cli.generator import open_ready
from gitdist.data.dataset import Dataset
from gitdist.device import Compute, set_threads
from gitdist.generator.quality import STATISTICS
from gitdist.spec import StudySpec
from gitdist.study.monitoring.display import open_display
from gitdist.study.resources.quality import Quality, measure_quality
from gitdist.trial.epoch_row import EpochRow
from gitdist.trial.reference import Reference, reference_classifier


def show_quality(
    specs: Sequence[StudySpec],
    results: Path,
    console: Console,
    *,
    images: int,
    draws: int,
    epochs: int | None,
    as_json: bool,
) -> None:
    """Measure the generators of studies and print the figures; for several studies, also a comparison.

    Raises:
        StudyError: a generator is not trained yet, or training the classifier diverged.
    """
    measured = []
    for spec in specs:
        result = _measure(spec, results, images, draws, epochs)
        measured.append(result)
        if not as_json:
            if len(specs) > 1:
                console.rule(escape(spec.name), align="left")
            _print_tables(result, console)
    if as_json:
        figures = [each.as_json() for each in measured]
        console.print_json(data=figures if len(figures) > 1 else figures[0])
    elif len(measured) > 1:
        console.rule("all studies", align="left")
        console.print(_comparison_table(measured))


@dataclass(frozen=True, eq=False, kw_only=True)
class _Measured:
    """A study's generator, its quality, and the reference classifier that measured it."""

    spec: StudySpec
    dataset: Dataset
    reference: Reference
    quality: Quality

    def as_json(self) -> dict[str, Any]:
        reference = self.reference
        images = len(reference.dataset.train.labels)
        return {
            "study": self.spec.name,
            "generator": self.spec.generator.kind,
            "nuisance": self.dataset.nuisance,
            "judge": {"network": self.spec.trial.network, "epochs": reference.epochs, "images": images},
            **self.quality.as_json(self.dataset.class_names),
        }


def _measure(spec: StudySpec, results: Path, images: int, draws: int, epochs: int | None) -> _Measured:
    set_threads(spec.resources.training.cpu)
    with open_ready(spec, results) as (dataset, store, generator):
        compute = Compute.resolve(spec.trial.precision)
        with open_display(Console(stderr=True)) as display:

            def report(row: EpochRow, total: int) -> None:
                detail = f"loss {row.loss:.3f}"
                display.progress("training the reference classifier", row.epoch, total, unit="epochs", detail=detail)

            network, options = spec.trial.network, spec.trial.network_options
            reference = reference_classifier(
                spec.data, network, epochs, store, compute, report, network_options=options
            )
        quality = measure_quality(
            generator, dataset, reference, compute, images=images, draws=draws, seed=spec.stream.seed
        )
    return _Measured(spec=spec, dataset=dataset, reference=reference, quality=quality)


def _print_tables(result: _Measured, console: Console) -> None:
    quality, reference = result.quality, result.reference
    console.print(_variation_table(quality, result.dataset.nuisance))
    console.print(_kept_table(quality, result.dataset.class_names))
    print_line(
        console,
        f"{quality.images} validation images, {quality.draws} draws of each; judged by {result.spec.trial.network}, "
        f"trained {reference.epochs} epochs on {len(reference.dataset.train.labels):,} images of all classes with the "
        "same nuisance",
    )


def _comparison_table(measured: Sequence[_Measured]) -> Table:
    """Return the main figures of each study: the share answered as the image's class, and the variation of draws."""
    columns = ("class\nkept", "true\ndraws", "nuisance\nstd", "true\ndraws", "object\nstd", "pixel\nstd")
    table = plain_table("study", *columns, right=columns)
    table.title = "generators compared (shares; std over the draws of an image, levels 0..255)"
    table.title_justify = "left"
    for each in measured:
        quality, own, true = each.quality, each.quality.generator, each.quality.true
        table.add_row(
            escape(each.spec.name),
            _cell(float(np.nanmean(quality.kept_draws)), ".3f"),
            _cell(None if quality.kept_true is None else float(np.nanmean(quality.kept_true)), ".3f"),
            _cell(own.nuisance_std, ".2f"),
            _cell(true.nuisance_std if true else None, ".2f"),
            _cell(own.object_std, ".2f"),
            _cell(own.pixel_std, ".2f"),
        )
    return table


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
            ratio = _cell(ratios.get(name), ".3f")
            table.add_row(title, _cell(own[name], ".2f"), _cell(true.get(name), ".2f"), ratio)
    return table


def _kept_table(quality: Quality, class_names: tuple[str, ...]) -> Table:
    table = Table(title="answered as the image's class (share)", title_justify="left")
    table.add_column("class")
    columns = {"images themselves": quality.kept_images, "draws": quality.kept_draws, "true draws": quality.kept_true}
    shares = {header: share for header, share in columns.items() if share is not None}
    for header in shares:
        table.add_column(header, justify="right")
    for index, name in enumerate(class_names):
        table.add_row(Text(name), *(_cell(share[index], ".3f") for share in shares.values()))
    table.add_section()
    table.add_row("mean", *(_cell(float(np.nanmean(share)), ".3f") for share in shares.values()))
    return table


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or np.isnan(value) else format(value, form)
