"""Tables that commands print."""

from typing import Any

from rich.table import Table

from gitdist.study.display import format_value
from gitdist.study.summary import METRICS

_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "many_accuracy": "many-shot accuracy",
    "medium_accuracy": "medium-shot accuracy",
    "few_accuracy": "few-shot accuracy",
    "ekld": "eKLD (nats, 0 = invariant)",
}


def summary_table(summary: dict[str, Any]) -> Table:
    """Return the best trial beside the baseline, on validation and on test."""
    best, baseline = summary["best"], summary["baseline"]
    title = f"{summary['study']}: trial {best['number']} ({_params(best)}) beside {_baseline(baseline)}"
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column("metric")
    columns = [("val", baseline), ("val", best), ("test", baseline), ("test", best)]
    for split, chosen in columns:
        kind = "baseline" if chosen is baseline else f"trial {best['number']}"
        table.add_column(f"{'validation' if split == 'val' else split}\n{kind}", justify="right")
    for metric in METRICS:
        values = [chosen[split].get(f"{split}/{metric}") if chosen else None for split, chosen in columns]
        if any(value is not None for value in values):
            name = _NAMES[metric]
            if metric == "ekld" and summary["ekld_under"] == "generator":
                name += "\nunder the learned generator"
            table.add_row(name, *("-" if value is None else f"{value:.4f}" for value in values))
    counts = ", ".join(f"{count} {state}" for state, count in summary["trials"].items())
    images = summary["generated_images"]
    table.caption = (
        f"trials: {counts}, in {summary['wall_s']:.0f} s; {images:,} images generated; trials waited for them "
        f"{summary['waiting_s']:.1f} s of {summary['training_s']:.0f} s of training"
    )
    return table


def _params(chosen: dict[str, Any]) -> str:
    return ", ".join(f"{name} {format_value(value)}" for name, value in chosen["params"].items())


def _baseline(baseline: dict[str, Any] | None) -> str:
    if baseline is None:
        return "a baseline whose training failed"
    augmentation = ("fraction", "threshold", "threshold_kind")
    rest = {name: value for name, value in baseline["params"].items() if name not in augmentation}
    return "no augmentation" + (f" ({_params({'params': rest})})" if rest else "")
