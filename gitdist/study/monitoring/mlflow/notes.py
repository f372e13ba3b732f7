"""What the page of a run says: a note in Markdown, and of the parent run the numbers of the study's results."""

import csv
import io
import math
from collections.abc import Callable, Mapping
from typing import Any

from gitdist.spec import StudySpec
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.gap import SPLITS, Estimate, estimate, metric_names, summary_gaps
from gitdist.study.summary import last_metrics

Note = Callable[[StudySpec], str]
"""Returns the note of a run, in Markdown, which MLflow's UI shows as the run's description."""

_SPACE = "&emsp;"  # between the columns of a table, which MLflow's UI shows without any
REASON_LENGTH = 500  # characters of why a trial ended, in notes and tags
_NO_GAP = 1e-12  # a smaller difference is a rounding error
_COSTS = {
    "wall_s": "s, of all drivers",
    "generator_training_s": "s",
    "training_s": "s, of all trials",
    "waiting_s": "s, of these, for the stream",
    "evaluating_s": "s",
    "generated_images": "images",
    "trained_epochs": "epochs",
    "shared_epochs": "epochs, taken from other trials",
    "saved_s": "s, by sharing",
}


def study_note(summary: Mapping[str, Any] | None, spec: StudySpec) -> str:
    """Return the note of the parent run: the study's answer, if it has finished, and its setting."""
    answer = _describe_answer(summary) if summary else "The study has not finished."
    parts = [answer, f"{_describe_setting(spec)}."]
    if spec.search.total:
        searched = ", ".join(f"`{name}`" for name in spec.search.space) or "nothing"
        objectives = " and ".join(spec.search.objectives)
        parts[-1] += f" {spec.search.total} trials ({spec.search.algorithm}) search {searched} for {objectives}."
    if summary:
        parts.append("`results.csv` has all metrics of the best trial and the baseline, `costs.csv` times and counts.")
    return "\n\n".join(parts)


def trial_note(
    paths: StudyPaths, trial: TrialId, params: Mapping[str, Any], outcome: Outcome | None, spec: StudySpec
) -> str:
    """Return the note of a trial's run, or of the baseline's: its setting and, once it has ended, its result."""
    number, metrics = trial.number, last_metrics(paths, trial) if outcome else {}
    if number is None:
        title = "Baseline: the study's trial without augmentation."
    else:
        shown = ", ".join(f"`{name}` = {_format(value)}" for name, value in params.items())
        title = f"Trial {number} of the search{f': {shown}' if shown else ''}."
    lines = [f"**{title}** {_describe_setting(spec)}."]
    if outcome is not None and outcome.state != "finished":
        lines.append(f"It was {outcome.state}{f': {outcome.reason[:REASON_LENGTH]}' if outcome.reason else ''}.")
    if metrics:
        lines.append(_metrics_table({"": metrics}))
        lines.append("`per_class.png` shows accuracy and eKLD of each class against its size.")
    return "\n\n".join(lines)


def generator_note(spec: StudySpec) -> str:
    """Return the note of the generator's run."""
    return (
        f"**Generator** of the study's augmentation ({spec.generator.kind}), trained on all classes of "
        f"{spec.data.source}; all trials use it.\n\n`samples.png` shows images and draws of the generator."
    )


def summary_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return the objectives of the best trial and of the baseline, and their gap with its standard error."""
    metrics: dict[str, float] = {}
    for gap in summary_gaps(summary):
        for role, found in (("best", gap.best), ("baseline", gap.baseline)):
            if found is not None:
                metrics[f"{role}/{SPLITS[gap.split]}/{gap.metric}"] = found.value
        metrics |= gap.metrics
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    return {name: value if abs(value) > _NO_GAP else 0.0 for name, value in finite.items()}


def summary_files(summary: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the metrics of the best trial and the baseline, and the study's costs, as CSV files by name."""
    roles = {role: {**summary[role]["val"], **summary[role]["test"]} for role in _chosen(summary)}
    header = ["metric", *(column for role in roles for column in (role, f"{role} standard error"))]
    results = [header]
    for name in dict.fromkeys(name for metrics in roles.values() for name in metric_names(metrics)):
        row = [name]
        for metrics in roles.values():
            found = estimate(metrics, name)
            values = (None, None) if found is None else (found.value, found.standard_error)
            row += ["" if value is None else f"{value:.6g}" for value in values]
        results.append(row)
    costs = [["cost", "value", "unit"]]
    costs += [[name, f"{summary[name]:.6g}", unit] for name, unit in _COSTS.items() if name in summary]
    return {"results.csv": _to_csv(results), "costs.csv": _to_csv(costs)}


def _describe_setting(spec: StudySpec) -> str:
    nuisance = "" if spec.data.nuisance == "none" else f" with nuisance {spec.data.nuisance}"
    return f"{spec.trial.network}, {spec.trial.epochs} epochs on {spec.data.source}{nuisance} ({spec.name})"


def _describe_answer(summary: Mapping[str, Any]) -> str:
    best = summary["best"]
    if best is None:
        if summary["trials"].get("finished") and summary.get("constraints"):
            return f"No trial meets the constraints {', '.join(summary['constraints'])}."
        return "No trial finished." if summary["trials"] else "Only data and generator, no trials."
    params = ", ".join(f"{name} = {_format(value)}" for name, value in best["params"].items())
    gaps = [f"- {gap.sentence(gap.metric)}" for gap in summary_gaps(summary)]
    roles = {role: {**summary[role]["val"], **summary[role]["test"]} for role in _chosen(summary)}
    answer = [f"Best on validation: trial {best['number']} ({params})", "\n".join(gaps), _metrics_table(roles)]
    return "\n\n".join(part for part in answer if part)


def _chosen(summary: Mapping[str, Any]) -> list[str]:
    return [role for role in ("baseline", "best") if summary.get(role)]


def _metrics_table(columns: Mapping[str, Mapping[str, float]]) -> str:
    """Return a Markdown table of metrics on validation and test, with a pair of columns for each of ``columns``."""
    names = [name for metrics in columns.values() for name in metric_names(metrics)]
    rows = dict.fromkeys(name.partition("/")[2] for name in names)
    splits = [split for split, prefix in SPLITS.items() if any(name.startswith(f"{prefix}/") for name in names)]
    header = ["metric", *(f"{column} {split}".strip() for split in splits for column in columns)]
    lines = [header]
    for row in rows:
        found = [estimate(metrics, f"{SPLITS[split]}/{row}") for split in splits for metrics in columns.values()]
        lines.append([row, *(_format_estimate(each) for each in found)])
    cells = [f"| {f'{_SPACE} | '.join(line)} |" for line in lines]
    return "\n".join([cells[0], "|---" * len(header) + "|", *cells[1:]])


def _format_estimate(value: Estimate | None) -> str:
    return "-" if value is None else value.format()


def _format(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _to_csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
