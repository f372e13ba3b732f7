"""The tables that ``run`` prints at the end of a study."""

import itertools
from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from gitdist.report.metrics import METRICS, metric_of
from gitdist.study.gap import summary_gaps
from gitdist.study.ledger.records import list_trials
from gitdist.study.trial_status import format_value

_COSTS = ("wall_s", "training_s", "waiting_s", "saved_s", "generated_images", "trained_epochs", "shared_epochs")
_TITLE_STYLE: Any = {"title_justify": "left", "title_style": "bold"}


def summary_tables(summary: dict[str, Any]) -> list[Table]:
    """Return the Pareto front of several objectives, the best trial next to the baseline, and the gaps between them."""
    tables = [_pareto_table(summary)] if summary.get("pareto") else []
    return [*tables, _best_table(summary), *_gap_tables(summary)] if summary["best"] else tables


def _best_table(summary: dict[str, Any]) -> Table:
    best, baseline = summary["best"], summary.get("baseline")
    beside = f" beside {_baseline(baseline)}" if "baseline" in summary else ""
    title = f"{summary.get('study', '')}: trial {best['number']} ({_params(best)}){beside}"
    caption = "\n".join([*_means(best, summary), _costs(summary)])
    table = Table(title=escape(title), caption=caption, caption_justify="left", **_TITLE_STYLE)
    table.add_column("metric")
    compared = [baseline, best] if beside else [best]
    columns = [(split, chosen) for split in ("val", "test") for chosen in compared]
    for split, chosen in columns:
        kind = "baseline" if chosen is baseline else f"trial {best['number']}"
        table.add_column(f"{'validation' if split == 'val' else split}\n{kind}", justify="right")
    for name, metric in METRICS.items():
        values = [chosen[split].get(f"{split}/{name}") if chosen else None for split, chosen in columns]
        if any(value is not None for value in values):
            shown = ("-" if value is None else f"{value:.4f}" for value in values)
            table.add_row(metric.label(summary.get("ekld_under", "nuisance")), *shown)
    return table


def _gap_tables(summary: dict[str, Any]) -> Iterator[Table]:
    """Yield baseline, best trial and gap with standard errors, one table per objective, at most 80 columns wide."""
    for metric, group in itertools.groupby(summary_gaps(summary), lambda gap: gap.metric):
        gaps = list(group)
        meaning = "" if gaps[0].best.standard_error is None else ", ± standard error"
        hints = dict.fromkeys(gap.hint for gap in gaps if gap.hint)
        notes = [f"{' and '.join(gap.split for gap in gaps if gap.hint == hint)}: {hint}" for hint in hints]
        title = f"{metric_of(metric).label(summary.get('ekld_under', 'nuisance'))}{meaning}"
        caption = "\n".join(notes) or None
        table = Table(title=title, caption=caption, caption_justify="left", **_TITLE_STYLE)
        table.add_column("split")
        for header in ("baseline", f"trial {summary['best']['number']}", "gap"):
            table.add_column(header, justify="right")
        for gap in gaps:
            estimates = ((gap.baseline, ""), (gap.best, ""), (gap.difference, "+"))
            cells = ["-" if each is None else each.format(sign) for each, sign in estimates]
            table.add_row(gap.split, *cells)
        yield table


def _pareto_table(summary: dict[str, Any]) -> Table:
    """Return the trials of the Pareto front on validation, in the order of the first objective."""
    names = [objective.removeprefix("val/") for objective in summary["objectives"]]
    fields = list(dict.fromkeys(name for chosen in summary["pareto"] for name in chosen["params"]))
    several = "; means on validation, the first trial on test" if summary["pareto"][0].get("replicates") else ""
    title = f"Pareto front on validation: no other trial is better in all objectives{several}"
    table = Table(title=title, **_TITLE_STYLE)
    for header in ("trial", *fields):
        table.add_column(header)
    for split in ("validation", "test"):
        for name in names:
            table.add_column(f"{split}\n{metric_of(name).title}", justify="right")
    for chosen in sorted(summary["pareto"], key=lambda trial: _objectives(trial, summary)[0]):
        values = [*_objectives(chosen, summary), *(chosen["test"].get(f"test/{name}") for name in names)]
        params = [escape(format_value(chosen["params"][name])) if name in chosen["params"] else "-" for name in fields]
        numbers = ", ".join(map(str, chosen.get("replicates") or [chosen["number"]]))
        table.add_row(numbers, *params, *("-" if value is None else f"{value:.4f}" for value in values))
    return table


def _objectives(chosen: dict[str, Any], summary: dict[str, Any]) -> list[Any]:
    """Return the objectives by which a trial was chosen: of replicates, the means."""
    return chosen.get("mean_objectives") or [chosen["val"].get(name) for name in summary["objectives"]]


def _means(best: dict[str, Any], summary: dict[str, Any]) -> Iterator[str]:
    """Yield a line about the objectives of the best point, if they are means over several trials."""
    if best.get("replicates"):
        pairs = zip(summary["objectives"], _objectives(best, summary), strict=True)
        means = ", ".join(f"{name} {value:.4f}" for name, value in pairs)
        yield f"mean of {list_trials(best['replicates'])}: {means}"


def _costs(summary: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in summary["trials"].items())
    wall_s, training_s, waiting_s, saved_s, images, trained, shared = (summary.get(name, 0) for name in _COSTS)
    text = (
        f"trials: {counts}, in {wall_s:.0f} s; {images:,} images generated; trials waited for them {waiting_s:.1f} s "
        f"of {training_s:.0f} s of training"
    )
    if shared:
        text += f"; {shared} of {trained + shared} epochs shared, which saved {saved_s:.0f} s"
    return text


def _params(chosen: dict[str, Any]) -> str:
    return ", ".join(f"{name} {format_value(value)}" for name, value in chosen["params"].items())


def _baseline(baseline: dict[str, Any] | None) -> str:
    if baseline is None:
        return "a baseline whose training failed"
    augmentation = ("fraction", "threshold", "threshold_kind")
    rest = {name: value for name, value in baseline["params"].items() if name not in augmentation}
    return "no augmentation" + (f" ({_params({'params': rest})})" if rest else "")
