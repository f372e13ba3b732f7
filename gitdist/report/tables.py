"""The report's tables, made from records."""

import itertools
from collections.abc import Mapping, Sequence

from gitdist.report.grouping import Line, Panel
from gitdist.report.metrics import METRICS
from gitdist.report.published import Published, published_figures
from gitdist.report.records import Split, StudyRecord, TrialRecord
from gitdist.report.size_curves import size_correlation
from gitdist.report.statistics import Interval, interval
from gitdist.report.table import Cell, Table
from gitdist.report.variance import variance_sources
from gitdist.study.monitoring.display import format_value
from gitdist.trial.evaluation import standard_error_name

COSTS = {
    "wall_s": "wall time (s)",
    "training_s": "training (s)",
    "evaluating_s": "evaluating (s)",
    "waiting_s": "waiting for draws (s)",
    "trained_epochs": "epochs trained",
    "shared_epochs": "epochs taken over",
    "saved_s": "spared by sharing (s)",
    "generated_images": "images generated",
}


def method_table(panel: Panel) -> Table:
    """Return the settings with mean and interval of every metric, and what is published for the same data."""
    measured = [metric for metric in METRICS if any(line.values(metric, panel.split) for line in panel.settings)]
    rows: list[list[Cell]] = [
        [line.label, len(line.replicates), *(_mean(line, metric, panel.split) for metric in measured)]
        for line in panel.settings
    ]
    if panel.split == "test":
        for figure in _published(panel):
            values = {"balanced_accuracy": Interval(figure.balanced_accuracy, None, 1)}
            rows.append([f"{figure.method}, published ({figure.source})", None, *map(values.get, measured)])
    return Table(
        name=f"methods-{panel.slug}",
        caption=f"{panel.title}: mean over replicates ± half of the 95 % interval, {panel.split} split. "
        + variance_sources(panel),
        columns=["setting", "replicates", *(METRICS[metric].axis(panel.ekld_under) for metric in measured)],
        rows=rows,
    )


def difference_table(panel: Panel) -> Table | None:
    """Return the differences between every two settings over the replicates that both have; None for one setting."""
    rows: list[list[Cell]] = []
    for one, other in itertools.combinations(panel.lines, 2):
        found = [other.minus(one, metric, panel.split) for metric in panel.compared]
        counts = [each.n for each in found if each]
        if counts:
            rows.append([f"{other.label} − {one.label}", max(counts), *found])
    if not rows:
        return None
    return Table(
        name=f"differences-{panel.slug}",
        caption=f"{panel.title}: paired differences over the same seeds and versions, {panel.split} split. "
        + variance_sources(panel),
        columns=["difference", "pairs", *(METRICS[metric].axis(panel.ekld_under) for metric in panel.compared)],
        rows=rows,
    )


def correlation_table(panels: Sequence[Panel]) -> Table | None:
    """Return the rank correlations of per-class eKLD with class size; None where no eKLD was measured."""
    rows: list[list[Cell]] = []
    for panel in panels:
        for line in panel.lines:
            found = size_correlation(line, "ekld", panel.split)
            if found is not None:
                under = METRICS["ekld"].told(panel.ekld_under)
                rows.append([panel.title, line.label, found.n, found, under, panel.split])
    if not rows:
        return None
    return Table(
        name="rank-correlations",
        caption="Spearman's rank correlation of a class's eKLD with its size: −1 = it falls as classes get larger. "
        "Mean over replicates [95 % interval]. " + " ".join(dict.fromkeys(variance_sources(panel) for panel in panels)),
        columns=["data", "setting", "replicates", "rank correlation", "measure", "split"],
        rows=rows,
    )


def best_table(study: StudyRecord) -> Table | None:
    """Return the best trial, or all that no other is better than, beside the baseline; None where nothing finished."""
    chosen = [trial for trial in study.trials if trial.trial.number in study.best and trial.finished]
    if not chosen:
        return None
    baseline = [study.baseline] if study.baseline and study.baseline.finished else []
    shown = [*baseline, *chosen]
    rows: list[list[Cell]] = []
    for split in ("validation", "test"):
        for name, metric in METRICS.items():
            values = [trial.value(split, name) for trial in shown]
            if any(value is not None for value in values):
                rows.append([metric.axis(study.spec.ekld_under), split, *values])
    beside = ", beside the same training without augmentation" if baseline else ""
    names = ["baseline" if trial.trial.number is None else f"trial {trial.trial}" for trial in shown]
    return Table(
        name=f"best-{study.spec.name}",
        caption=f"{study.spec.name}: chosen on validation{beside}",
        columns=["metric", "split", *names],
        rows=rows,
    )


def gap_table(study: StudyRecord) -> Table | None:
    """Return best trial, baseline and gap in each objective, with standard errors; None where nothing finished."""
    rows: list[list[Cell]] = []
    for gap in study.gaps:
        estimates = (gap.baseline, gap.best, gap.difference)
        cells = [cell for each in estimates for cell in ((each.value, each.standard_error) if each else (None, None))]
        rows.append([METRICS[gap.metric].axis(study.spec.ekld_under), gap.split, *cells, gap.hint])
    if not rows:
        return None
    return Table(
        name=f"gap-{study.spec.name}",
        caption=f"{study.spec.name}: gap between the best trial and the baseline, with standard errors",
        columns=[
            "objective",
            "split",
            *(name for kind in ("baseline", "best trial", "gap") for name in (kind, f"standard error of {kind}")),
            "",
        ],
        rows=rows,
    )


def trials_table(studies: Sequence[StudyRecord]) -> Table:
    """Return every trial of every study, baselines among them, with parameters, state and metrics."""
    records = [(study, trial) for study in studies for trial in _all_trials(study)]
    fields = list(dict.fromkeys(name for _, trial in records for name in trial.params))
    linked = ["same training as"] if any(trial.links for _, trial in records) else []
    splits: tuple[Split, ...] = ("validation", "test")
    measured = [
        (split, name)
        for split in splits
        for metric in METRICS
        for name in (metric, standard_error_name(metric))
        if any(trial.value(split, name) is not None for _, trial in records)
    ]
    rows = [
        [
            study.spec.name,
            str(trial.trial),
            *(format_value(trial.params[name]) if name in trial.params else None for name in fields),
            study.spec.data.version,
            trial.state,
            trial.epoch,
            *(_link(trial) for _ in linked),
            *(trial.value(split, name) for split, name in measured),
            study.spec.ekld_under,
            trial.reason,
        ]
        for study, trial in records
    ]
    titles = {name: metric.axis("nuisance") for name, metric in METRICS.items()}
    titles |= {standard_error_name(name): f"standard error of {metric.title}" for name, metric in METRICS.items()}
    told = [f"{split} {titles[name]}" for split, name in measured]
    return Table(
        name="trials",
        caption="All trials; validation figures are those of the last evaluated epoch",
        columns=["study", "trial", *fields, "version", "state", "epochs", *linked, *told, "eKLD under", "reason"],
        rows=rows,
    )


def cost_table(studies: Sequence[StudyRecord]) -> Table | None:
    """Return what each finished study took and what sharing spared it; None where none has finished."""
    done = [(study.spec.name, study.summary) for study in studies if study.summary]
    rows = [[name, *(summary.get(cost) for cost in COSTS)] for name, summary in done]
    if not rows:
        return None
    return Table(name="costs", caption="What the studies took", columns=["study", *COSTS.values()], rows=rows)


def total_costs(studies: Sequence[StudyRecord]) -> Mapping[str, float]:
    """Return the costs of all finished studies together."""
    return {name: sum(study.summary.get(name, 0) for study in studies if study.summary) for name in COSTS}


def _published(panel: Panel) -> list[Published]:
    """Return the published figures that belong to the data of every replicate shown."""
    shown = [replicate for line in panel.settings for replicate in line.replicates]
    found = [published_figures(each.study.spec.data, each.classes) for each in shown]
    return [figure for figure in found[0] if all(figure in some for some in found)]


def _link(trial: TrialRecord) -> str | None:
    """Say with which trial another one shares its training: whether it has its result or was trained again."""
    if "repeat_of" in trial.links:
        return f"trial {trial.links['repeat_of']} (result reused)"
    return f"trial {trial.links['replicate_of']} (trained again)" if trial.links else None


def _mean(line: Line, metric: str, split: Split) -> Interval | None:
    values = list(line.values(metric, split).values())
    return interval(values) if values else None


def _all_trials(study: StudyRecord) -> list[TrialRecord]:
    return [*([study.baseline] if study.baseline else []), *study.trials]
