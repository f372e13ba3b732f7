"""The report's tables: raw numbers as CSV, rounded ones as LaTeX.

A function takes the report and yields its tables, none if it does not apply.
"""

import csv
import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gitdist.data.longtail import profile_sizes
from gitdist.report.comparison import Comparison, Report
from gitdist.report.findings import variance_sources
from gitdist.report.metrics import METRICS, metric_of
from gitdist.report.records import ClassInfo, ReportedTrial, Split
from gitdist.report.statistics import Interval
from gitdist.spec import DataSpec, ProfileSpec
from gitdist.spec.objective import standard_error_name
from gitdist.spec.search import METHOD
from gitdist.study.trial_status import format_value

Cell = str | int | float | Interval | None

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

_SPLITS: tuple[Split, ...] = ("validation", "test")
_DECIMALS = 4
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_"},
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
}

# Test accuracy of Zhou et al., ICLR 2022 (arXiv 2203.09739), by data source: official images per class, accuracy.
_PUBLISHED = {"cifar-10": (10 * [5000], 0.7876), "cifar-100": (100 * [500], 0.4435)}
_PUBLISHED_PROFILE = ProfileSpec(kind="exponential", factor=0.01)
_PUBLISHED_LABEL = "CE+DRS+GIT, published (Zhou et al. 2022, one generator, ResNet-32)"


@dataclass(frozen=True, eq=False)
class Table:
    """A table; ``name`` is that of its files.

    A column that holds intervals holds nothing else but None. In CSV it is three columns: mean and both ends.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def csv(self) -> str:
        """Return the table with all digits; None is empty."""
        wide = {index for row in self.rows for index, cell in enumerate(row) if isinstance(cell, Interval)}
        header = [
            [name, f"{name} low", f"{name} high"] if index in wide else [name]
            for index, name in enumerate(self.columns)
        ]
        rows = [[_raw(cell, index in wide) for index, cell in enumerate(row)] for row in self.rows]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(itertools.chain(*header))
        writer.writerows(itertools.chain(*row) for row in rows)
        return text.getvalue()

    def latex(self) -> str:
        """Return the table as a plain ``tabular``, which needs no package."""
        alignment = "".join("l" if self.is_text(index) else "r" for index in range(len(self.columns)))
        header, *lines = [
            " & ".join("".join(_LATEX.get(sign, sign) for sign in cell) for cell in row) + r" \\"
            for row in [self.columns, *([format_cell(cell) for cell in row] for row in self.rows)]
        ]
        head = [f"% {' '.join(self.caption.split())}", rf"\begin{{tabular}}{{{alignment}}}", r"\hline", header]
        return "\n".join([*head, r"\hline", *lines, r"\hline", r"\end{tabular}", ""])

    def is_text(self, index: int) -> bool:
        """Tell whether any cell of a column is text."""
        return any(isinstance(row[index], str) for row in self.rows)


def format_cell(cell: Cell) -> str:
    """Return a cell for reading: four decimals, one decimal from 10 on; a dash for None.

    An interval is mean ± half width, or mean [low, high] if it has limits.
    """
    if cell is None:
        return "–"
    if isinstance(cell, Interval):
        width = "" if cell.half_width is None else f" ± {cell.half_width:.{_DECIMALS}f}"
        if cell.ends and cell.limits:
            width = f" [{cell.ends[0]:.{_DECIMALS}f}, {cell.ends[1]:.{_DECIMALS}f}]"
        return f"{cell.mean:.{_DECIMALS}f}{width}".replace("-", "−")
    if isinstance(cell, float):
        decimals = _DECIMALS if abs(cell) < 10 else 1
        return f"{cell:,.{decimals}f}".replace("-", "−") if math.isfinite(cell) else "–"
    return f"{cell:,}" if isinstance(cell, int) else cell


def method_tables(report: Report) -> Iterator[Table]:
    """Yield the ``method_table`` of each comparison."""
    yield from map(method_table, report.comparisons)


def method_table(comparison: Comparison) -> Table:
    """Return the settings with mean and interval of every metric, and what is published for the same data."""
    split, settings = comparison.split, comparison.table_settings
    measured = [metric for metric in METRICS if any(setting.mean(metric, split) for setting in settings)]
    rows: list[list[Cell]] = [
        [setting.label, len(setting.replicates), *(setting.mean(metric, split) for metric in measured)]
        for setting in settings
    ]
    found = {published_accuracy(each.study.spec.data, each.classes) for one in settings for each in one.replicates}
    if split == "test" and len(found) == 1 and (accuracy := found.pop()) is not None:
        published = {"balanced_accuracy": Interval(accuracy, None, 1)}
        rows.append([_PUBLISHED_LABEL, None, *map(published.get, measured)])
    caption = f"{comparison.title}: mean over replicates ± half of the 95 % interval, {split} split."
    columns = ["setting", "replicates", *(METRICS[metric].label(comparison.ekld_under) for metric in measured)]
    return Table(f"methods-{comparison.slug}", f"{caption} {variance_sources(comparison)}", columns, rows)


def difference_tables(report: Report) -> Iterator[Table]:
    """Yield the paired differences between every two settings of a comparison."""
    for comparison in report.comparisons:
        rows: list[list[Cell]] = []
        for one, other in itertools.combinations(comparison.settings, 2):
            found = [other.difference(one, metric, comparison.split) for metric in comparison.compared]
            counts = [each.n for each in found if each]
            if counts:
                rows.append([f"{other.label} − {one.label}", max(counts), *found])
        if rows:
            title = (
                f"{comparison.title}: paired differences over the same seeds and versions, {comparison.split} split."
            )
            metrics = [METRICS[metric].label(comparison.ekld_under) for metric in comparison.compared]
            name, caption = f"differences-{comparison.slug}", f"{title} {variance_sources(comparison)}"
            yield Table(name, caption, ["difference", "pairs", *metrics], rows)


def correlation_table(report: Report) -> Iterator[Table]:
    """Yield the rank correlations of per-class eKLD with class size."""
    rows: list[list[Cell]] = []
    for comparison in report.comparisons:
        for setting in comparison.settings:
            found = setting.size_correlation("ekld", comparison.split)
            if found is not None:
                metric = METRICS["ekld"].title_under(comparison.ekld_under)
                rows.append([comparison.title, setting.label, found.n, found, metric, comparison.split])
    if rows:
        variance = " ".join(dict.fromkeys(map(variance_sources, report.comparisons)))
        caption = (
            "Spearman's rank correlation of per-class eKLD with class size: −1 = eKLD falls as classes grow. "
            f"Mean over replicates [95 % interval]. {variance}"
        )
        columns = ["data", "setting", "replicates", "rank correlation", "measure", "split"]
        yield Table("rank-correlations", caption, columns, rows)


def best_tables(report: Report) -> Iterator[Table]:
    """Yield the best trial, or the Pareto front, and the baseline of each study that does not compare methods."""
    for study in report.compared_studies:
        chosen = [trial for trial in study.finished if trial.trial.number in study.best]
        if chosen and METHOD not in study.spec.search.space:
            baseline = study.finished_baseline
            trials = {"baseline": baseline} if baseline else {}
            trials |= {f"trial {trial.trial}": trial for trial in chosen}
            rows: list[list[Cell]] = []
            for split in _SPLITS:
                for name, metric in METRICS.items():
                    values = [trial.metric(split, name) for trial in trials.values()]
                    if any(value is not None for value in values):
                        rows.append([metric.label(study.spec.ekld_under), split, *values])
            caption = f"{study.spec.name}: chosen on validation"
            caption += ", compared with the study's training without augmentation" if baseline else ""
            yield Table(f"best-{study.spec.name}", caption, ["metric", "split", *trials], rows)


def gap_tables(report: Report) -> Iterator[Table]:
    """Yield baseline, best trial and gap in each objective of a study, with standard errors."""
    kinds = ("baseline", "best trial", "gap")
    estimates = [name for kind in kinds for name in (kind, f"standard error of {kind}")]
    for study in report.compared_studies:
        rows: list[list[Cell]] = []
        for gap in study.gaps:
            cells: list[Cell] = []
            for estimate in (gap.baseline, gap.best, gap.difference):
                cells += [estimate.value, estimate.standard_error] if estimate else [None, None]
            rows.append([metric_of(gap.metric).label(study.spec.ekld_under), gap.split, *cells, gap.hint])
        if rows:
            caption = f"{study.spec.name}: gap between the best trial and the baseline, with standard errors"
            yield Table(f"gap-{study.spec.name}", caption, ["objective", "split", *estimates, ""], rows)


def trials_table(report: Report) -> Iterator[Table]:
    """Yield all trials and baselines with parameters, state and metrics."""
    if not any(study.trials for study in report.studies):
        return
    trials = [(study, trial) for study in report.studies for trial in (study.baseline, *study.trials) if trial]
    fields = list(dict.fromkeys(name for _, trial in trials for name in trial.params))
    linked = ["same training as"] if any(trial.links for _, trial in trials) else []
    labels = {}
    for name, metric in METRICS.items():
        labels[name] = metric.label("nuisance")  # T is in a column
        labels[standard_error_name(name)] = metric_of(standard_error_name(name)).title
    measured = [
        (split, name)
        for split in _SPLITS
        for name in labels
        if any(trial.metric(split, name) is not None for _, trial in trials)
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
            *(trial.metric(split, name) for split, name in measured),
            study.spec.ekld_under,
            trial.reason,
        ]
        for study, trial in trials
    ]
    metrics = [f"{split} {labels[name]}" for split, name in measured]
    columns = ["study", "trial", *fields, "version", "state", "epochs", *linked, *metrics, "eKLD under", "reason"]
    yield Table("trials", "All trials; validation metrics are those of the last evaluated epoch", columns, rows)


def cost_table(report: Report) -> Iterator[Table]:
    """Yield the cost of each finished study, and what sharing saved."""
    if total_costs(report)["training_s"]:
        rows = [[study.spec.name, *map(study.summary.get, COSTS)] for study in report.studies if study.summary]
        yield Table("costs", "Cost of the studies", ["study", *COSTS.values()], rows)


def total_costs(report: Report) -> Mapping[str, float]:
    """Return the sums of the costs of all finished studies, by name as in ``COSTS``."""
    return {name: sum(study.summary.get(name, 0) for study in report.studies if study.summary) for name in COSTS}


def published_accuracy(data: DataSpec, classes: ClassInfo) -> float | None:
    """Return the published accuracy for the same long tail: as many distinct training images in every class."""
    official, accuracy = _PUBLISHED.get(data.source, ([], None))
    if accuracy is None or data.nuisance != "none" or len(classes.sizes) != len(official):
        return None
    distinct = classes.distinct
    if distinct is None:
        # Version 0.5.0 did not record it. It filled a class with copies if the profile asked for more images than were
        # left after holding out validation.
        held_out = max(min(int(data.validation_share * official[0]), data.validation_per_class or official[0]), 1)
        distinct = np.minimum(classes.sizes, official[0] - held_out)
    return accuracy if distinct.tolist() == profile_sizes(_PUBLISHED_PROFILE, official) else None


def _raw(cell: Cell, wide: bool) -> list[str | int | float]:
    if isinstance(cell, Interval):
        return [cell.mean, *(cell.ends or ("", ""))]
    return ["" if cell is None else cell] + (["", ""] if wide else [])


def _link(trial: ReportedTrial) -> str | None:
    if "repeat_of" in trial.links:
        return f"trial {trial.links['repeat_of']} (result reused)"
    return f"trial {trial.links['replicate_of']} (trained again)" if trial.links else None
