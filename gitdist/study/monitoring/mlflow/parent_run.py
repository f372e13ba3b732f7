"""What the parent run of a study shall hold: the study's status, its summary and files, and what was seen of it."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from gitdist.address import without_secrets
from gitdist.disk import read_object
from gitdist.study.files.events import TrialStates
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.files.times import GENERATOR, STUDY, Span, Times
from gitdist.study.gap import SPLITS, Gap, estimate, summary_gaps
from gitdist.study.monitoring.mlflow.content import (
    DesiredRun,
    Point,
    Status,
    file_contents,
    to_ms,
    trial_span,
    written_at,
)
from gitdist.study.monitoring.mlflow.system_metrics import PREFIX
from gitdist.trial.evaluation import standard_error_name

_SEEN = ("stream/images_per_s", "stream/window_blocks", "stream/server_utilisation", "stream/waiting_s")
_ENDED = "ended_at"  # of the summary; a time, no figure


def study_content(
    paths: StudyPaths, status: Status, summary: Mapping[str, Any] | None = None, times: Times | None = None
) -> DesiredRun:
    """Return what the parent run shall hold.

    Args:
        paths: the study's files.
        status: MLflow's status.
        summary: the study's summary, once there is one.
        times: the study's; None = they are read now.
    """
    return DesiredRun(
        name=paths.name,
        status=status,
        tags={"mlflow.note.content": _note(summary)} if summary else {},
        points=partial(_seen, paths),
        span=partial(study_span, paths, times or Times(paths), summary),
        figures=partial(_summary_figures, paths, summary) if summary else lambda: None,
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


def study_span(paths: StudyPaths, times: Times, summary: Mapping[str, Any] | None) -> Span:
    """Return when the study's first driver started and its last one ended.

    Where no end was noted (the driver was killed), it is that of the summary, else the latest time in any file. A study
    of gitdist 0.5 starts with its first trial, or as long before its end as its drivers took if that is earlier.
    """
    noted, trials = times.span(STUDY), [trial_span(paths, trial, times) for trial in _trials(paths)]
    starts = [span.started_at for span in (noted, *trials) if span.started_at is not None]
    end = noted.ended_at or (summary or {}).get(_ENDED)
    if end is None:
        seen = [line["at"] for line in read_rows(paths.figures)[-1:]]
        end = max([*seen, *starts, *(span.ended_at for span in trials if span.ended_at is not None)], default=None)
    if noted.started_at is None and summary and end is not None:
        starts.append(end - summary.get("wall_s", 0.0))
    return Span(min(starts, default=None), end)


def generator_span(paths: StudyPaths, times: Times) -> Span:
    """Return when the study began to train its generator, or to look for it in the store, and when it had it.

    A study of gitdist 0.5 had it before its first trial, after as many seconds as its drivers' accounts say.
    """
    noted = times.span(GENERATOR)
    if noted.started_at is not None:
        return noted
    starts = [trial_span(paths, trial, times).started_at for trial in _trials(paths)]
    end = min((start for start in starts if start is not None), default=None)
    accounts = [read_object(file) or {} for file in sorted(paths.usage.glob("*.json"))]
    return Span(end and end - sum(account.get("generator_training_s", 0.0) for account in accounts), end)


def _trials(paths: StudyPaths) -> list[TrialId]:
    numbers = [int(place.name) for place in (paths.study / "trials").glob("*") if place.name.isdigit()]
    return [BASELINE, *(TrialId("trial", number) for number in sorted(numbers))]


def _seen(paths: StudyPaths) -> list[Point]:
    """Return what was seen while drivers worked, a point for each line of ``watch.jsonl``."""
    points = []
    for line in read_rows(paths.figures):
        names = [name for name in line if name in _SEEN or name.startswith(PREFIX)]
        metrics = {name: float(line[name]) for name in names}
        if metrics:
            points.append(Point(line["step"], metrics, int(1000 * line["at"])))
    return points


def _summary_figures(paths: StudyPaths, summary: Mapping[str, Any]) -> Point:
    """Return the summary's numbers; the step is the number of trials, so a study that grew has one value a size."""
    metrics = {name: value for name, value in summary.items() if isinstance(value, int | float) and name != _ENDED}
    for role in ("best", "baseline"):
        chosen = summary.get(role) or {"val": {}, "test": {}}
        metrics |= {f"{role}/{name}": value for name, value in {**chosen["val"], **chosen["test"]}.items()}
    for gap in summary_gaps(summary):
        metrics |= _gap_figures(gap)
    finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    at = summary.get(_ENDED) or written_at(paths.summary)
    return Point(sum(summary.get("trials", {}).values()), finite, to_ms(at))


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
