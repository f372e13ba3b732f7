"""What the parent run of a study shall hold: the study's status, its summary and files, and what was seen of it."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from gitdist.address import without_secrets
from gitdist.study.events import TrialStates
from gitdist.study.gap import SPLITS, Gap, estimate, summary_gaps
from gitdist.study.paths import StudyPaths
from gitdist.study.rows import read_rows
from gitdist.study.tracking.content import Point, Status, Wanted, file_contents, written_ms
from gitdist.study.tracking.machine import PREFIX
from gitdist.trial.evaluation import standard_error_name

_SEEN = ("stream/images_per_s", "stream/window_blocks", "stream/server_utilisation", "stream/waiting_s")


def study_content(paths: StudyPaths, status: Status, summary: Mapping[str, Any] | None = None) -> Wanted:
    """Return what the parent run shall hold.

    Args:
        paths: the study's files.
        status: MLflow's status.
        summary: the study's summary, once there is one.
    """
    return Wanted(
        name=paths.name,
        status=status,
        tags={"mlflow.note.content": _note(summary)} if summary else {},
        points=partial(_seen, paths),
        timed=False,  # drivers come and go
        figures=partial(_summary_figures, summary, written_ms(paths.summary)) if summary else lambda: None,
        lasted_s=summary.get("wall_s", 0.0) if summary else 0.0,
        files=partial(_study_files, paths),
    )


def study_status(states: TrialStates, num_open: int, finished: bool) -> Status:
    """Return the parent run's status while no driver works on the study.

    Args:
        states: of all trials ever, and of the baseline.
        num_open: trials that are to be run yet.
        finished: whether the study has a summary.
    """
    ended = {outcome and outcome.state for _, outcome in states.values()}
    if num_open or not ended <= {"finished", "pruned", "failed"}:
        return "KILLED"
    searched = {outcome.state for trial, (_, outcome) in states.items() if outcome and trial.role == "trial"}
    if searched and "finished" not in searched:
        return "FAILED"
    return "FINISHED" if finished else "KILLED"


def _seen(paths: StudyPaths) -> list[Point]:
    """Return what was seen while drivers worked, a point for each line of ``watch.jsonl``."""
    points = []
    for line in read_rows(paths.watch):
        names = [name for name in line if name in _SEEN or name.startswith(PREFIX)]
        metrics = {name: float(line[name]) for name in names}
        if metrics:
            points.append(Point(line["step"], metrics, int(1000 * line["at"])))
    return points


def _summary_figures(summary: Mapping[str, Any], time_ms: int) -> Point:
    """Return the summary's numbers; the step is the number of trials, so a study that grew has one value a size."""
    metrics = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    for role in ("best", "baseline"):
        chosen = summary.get(role) or {"val": {}, "test": {}}
        metrics |= {f"{role}/{name}": value for name, value in {**chosen["val"], **chosen["test"]}.items()}
    for gap in summary_gaps(summary):
        metrics |= _gap_figures(gap)
    finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    return Point(sum(summary.get("trials", {}).values()), finite, time_ms)


def _gap_figures(gap: Gap) -> dict[str, float]:
    """Return the gap to the baseline and its standard error by name: ``gap/val/ekld``, ``gap/val/ekld_se``."""
    if gap.difference is None:
        return {}
    name = f"gap/{SPLITS[gap.split]}/{gap.metric}"
    error = gap.difference.standard_error
    return {name: gap.difference.value} | ({} if error is None else {standard_error_name(name): error})


def _study_files(paths: StudyPaths) -> dict[str, bytes]:
    files = file_contents([paths.spec, paths.summary])
    return {name: without_secrets(content.decode()).encode() for name, content in files.items()}


def _note(summary: Mapping[str, Any]) -> str:
    """Return the parent run's description in Markdown: the best trial beside the baseline."""
    best, baseline = summary["best"], summary.get("baseline") or {"val": {}, "test": {}}
    if best is None:
        return "No trial finished." if summary["trials"] else "Data and generator alone, no trials."
    params = ", ".join(f"{name} = {value}" for name, value in best["params"].items())
    lines = [
        f"Best on validation: trial {best['number']} ({params})",
        "",
        *(f"- {gap.sentence(gap.metric)}" for gap in summary_gaps(summary)),
        "",
        "| metric | baseline | best |",
        "|---|---|---|",
    ]
    for split in ("val", "test"):
        for name in best[split]:
            if standard_error_name(name) in best[split] or not name.endswith(standard_error_name("")):
                lines.append(f"| {name} | {_cell(baseline[split], name)} | {_cell(best[split], name)} |")
    return "\n".join(lines)


def _cell(metrics: Mapping[str, float], name: str) -> str:
    found = estimate(metrics, name)
    return "-" if found is None else found.shown()
