"""What a report shows, in order: sections of pictures, tables and sentences, each only where its data is there."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from gitdist.report.figures.class_size import class_size_figure
from gitdist.report.figures.cost import cost_figure
from gitdist.report.figures.importance import importance_figure
from gitdist.report.figures.parallel import parallel_figure
from gitdist.report.figures.parameter import parameter_figure
from gitdist.report.figures.per_class import per_class_figure
from gitdist.report.figures.surface import surface_figure
from gitdist.report.findings import counted
from gitdist.report.grouping import MAX_SETTINGS, Panel, extra_labels, field_title
from gitdist.report.importance import importances
from gitdist.report.metrics import METRICS, marked
from gitdist.report.records import StudyRecord
from gitdist.report.table import Table
from gitdist.report.tables import (
    best_table,
    correlation_table,
    cost_table,
    difference_table,
    gap_table,
    method_table,
    total_costs,
    trials_table,
)
from gitdist.report.variance import variance_sources
from gitdist.spec.search import METHOD


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, or a picture that is there already (PNG), with the caption that says what is seen."""

    name: str
    caption: str
    figure: Figure | bytes


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the report; ``folded`` ones open on demand."""

    title: str
    blocks: Sequence[Picture | Table]
    folded: bool = False


def make_sections(studies: Sequence[StudyRecord], panels: Sequence[Panel]) -> list[Section]:
    """Return the report's sections; those without anything to show are left out.

    Args:
        studies: all of them.
        panels: what is shown of them.
    """
    sections = [
        Section("Settings compared", [method_table(panel) for panel in panels]),
        Section("Invariance against class size", [*_size_pictures(panels, "ekld"), *_some(correlation_table(panels))]),
        Section("Consistency against class size", _size_pictures(panels, "consistency")),
        Section("Differences", [table for panel in panels for table in _some(difference_table(panel))]),
        Section("The threshold K", _sweeps(panels, "threshold")),
        Section("The fraction p", _sweeps(panels, "fraction")),
        Section("Accuracy of every class", [each for panel in panels for each in _per_class(panel)]),
        Section("The search", [block for panel in panels for block in _search(panel)]),
        Section("Draws of the generator", _samples(studies)),
        Section("Cost", _costs(studies)),
        Section("All trials", [trials_table(studies)] if any(study.trials for study in studies) else [], folded=True),
    ]
    return [section for section in sections if section.blocks]


def _size_pictures(panels: Sequence[Panel], measure: str) -> list[Picture]:
    told = {
        "ekld": "eKLD{} of each class against its size in training images. 0 = the answer does not change at all.",
        "consistency": "Share of transformed images{} that are answered as the untransformed one, against class size.",
    }[measure]
    pictures = []
    for panel in panels:
        figure = class_size_figure(panel, measure)
        if figure is not None:
            caption = f"{told.format(marked(panel.ekld_under))} {_seen(panel)}"
            pictures.append(Picture(f"{measure}-by-class-size-{panel.slug}", caption, figure))
    return pictures


def _sweeps(panels: Sequence[Panel], field: str) -> list[Picture]:
    pictures = []
    for panel in panels:
        for metric in panel.compared:
            figure = parameter_figure(panel, field, metric)
            if figure is not None:
                what = METRICS[metric].told(panel.ekld_under)
                caption = (
                    f"{what[0].upper() + what[1:] if not what.startswith('eKLD') else what} against the "
                    f"{field_title(field).split(' (')[0]}, {panel.trials_split} split. Points are trials, or means "
                    "over replicates with their 95 % interval; level lines: settings without this field."
                )
                pictures.append(Picture(f"{metric.replace('_', '-')}-by-{field}-{panel.slug}", caption, figure))
    return pictures


def _per_class(panel: Panel) -> list[Picture]:
    figure = per_class_figure(panel)
    caption = f"Accuracy of every class, the largest class first. {_seen(panel)}"
    return [] if figure is None else [Picture(f"accuracy-per-class-{panel.slug}", caption, figure)]


def _search(panel: Panel) -> list[Picture | Table]:
    """Return what each study chose, and how its search went; of many studies on one data set nothing."""
    if len(panel.studies) > MAX_SETTINGS:
        return []
    blocks: list[Picture | Table] = []
    for study in panel.studies:
        blocks += _some(best_table(study)) if METHOD not in study.spec.search.space else []
        blocks += _some(gap_table(study))
        blocks += _search_pictures(study) if panel.searched else []
    return blocks


def _search_pictures(study: StudyRecord) -> list[Picture]:
    name, objective = study.spec.name, METRICS[study.objective].title
    counts = counted(len(study.finished), "finished trial")
    shares = importances(study)
    told = {
        "importance": f"which searched fields matter for {objective} (PED-ANOVA); a hint, not a test",
        "parallel": f"each line is a trial, coloured by {objective} (dark = low, light = high), dashed = the best",
        "surface": f"{objective} over two searched fields, drawn between the trials (points)",
    }
    figures = {
        "importance": importance_figure(name, shares) if shares else None,
        "parallel": parallel_figure(study),
        "surface": surface_figure(study),
    }
    return [
        Picture(f"{kind}-{name}", f"{name}: {told[kind]}; validation split, {counts}.", figure)
        for kind, figure in figures.items()
        if figure is not None
    ]


def _samples(studies: Sequence[StudyRecord]) -> list[Picture]:
    """Return the pictures of draws: of versions of one data set the first, and no picture twice."""
    shown: dict[tuple[object, ...], StudyRecord] = {}
    for study in studies:
        if study.samples is not None:
            data = study.spec.data
            shown.setdefault((data.source, data.path, data.nuisance, extra_labels(study)), study)
    pictures = {study.samples: study.spec.name for study in reversed(shown.values()) if study.samples is not None}
    caption = "{0}: an image of each class (left) and draws of the generator from it."
    return [Picture(f"samples-{name}", caption.format(name), samples) for samples, name in reversed(pictures.items())]


def _costs(studies: Sequence[StudyRecord]) -> list[Picture | Table]:
    table, costs = cost_table(studies), total_costs(studies)
    if table is None or not costs["training_s"]:
        return []
    waited = f"{costs['waiting_s'] / costs['training_s']:.1%}"
    caption = (
        f"All finished studies together: {costs['generated_images']:,.0f} images generated; trials waited for them "
        f"{waited} of their training time; sharing the first stage spared {costs['saved_s']:,.0f} s of training."
    )
    return [Picture("costs", caption, cost_figure(costs)), table]


def _seen(panel: Panel) -> str:
    """Say on which split and over how many replicates a figure is, and what its intervals contain."""
    counts = {len(line.replicates) for line in panel.lines}
    most = max(counts)
    of_each = counted(most, "replicate") if len(counts) == 1 else f"up to {counted(most, 'replicate')}"
    band = "" if most == 1 else "; shaded or barred: 95 % interval of the mean"
    return f"{panel.split.capitalize()} split, {of_each} per line{band}. {variance_sources(panel)}"


def _some(table: Table | None) -> list[Table]:
    return [] if table is None else [table]
