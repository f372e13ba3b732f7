"""What the MLflow runs of a study shall hold; the study's files are the truth, and MLflow is a copy of them.

rows.jsonl --> one point an epoch           test.json --> test metrics
rows.jsonl, per-class table and figure, study.yaml, summary.json, samples.png --> files
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from gitdist.disk import read_object
from gitdist.generator.training import TrainingStep
from gitdist.study.events import Outcome, TrialStates
from gitdist.study.paths import StudyPaths, TrialId
from gitdist.study.rows import read_rows
from gitdist.study.tracking.figures import write_per_class
from gitdist.study.tracking.place import without_password

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

_LOGGED = ("train/loss", "train/accuracy", "lr", "draws", "waiting_s")
_STATUSES: dict[str, Status] = {
    "finished": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
_REASON, _PRUNED = "gitdist.reason", "gitdist.pruned"
_REASON_LENGTH = 500

PASSING_TAGS = (_REASON, _PRUNED)
"""Tags that say how a trial ended; one that runs again has none."""


@dataclass(frozen=True)
class RunKey:
    """Which run of a study: the study itself (the parent), its generator, its baseline, or a trial by number."""

    role: str
    number: int | None = None

    @classmethod
    def of_trial(cls, trial: TrialId) -> Self:
        """Return the key of a trial or the baseline."""
        return cls(trial.role, trial.number)

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Self:
        """Return the key that a run's tags tell."""
        number = tags.get("gitdist.trial")
        return cls(tags["gitdist.role"], None if number is None else int(number))

    @property
    def tags(self) -> dict[str, str]:
        """The tags by which the run is found."""
        number = {} if self.number is None else {"gitdist.trial": str(self.number)}
        return {"gitdist.role": self.role, **number}


STUDY, GENERATOR = RunKey("study"), RunKey("generator")


@dataclass(frozen=True)
class Point:
    """Metrics of one step, and when it was done (milliseconds since 1970)."""

    step: int
    metrics: Mapping[str, float]
    time_ms: int


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What one run shall hold. The three callables read it when it is written, so it is never older than the files.

    Args:
        name: the run's name.
        status: MLflow's status.
        params: the run's parameters.
        tags: tags beside those of all runs of the study.
        points: the curves, by rising step.
        figures: single values, None where there are none.
        files: contents by name; asked for once the run has ended.
    """

    name: str
    status: Status
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    points: Callable[[], Sequence[Point]] = tuple
    figures: Callable[[], Point | None] = lambda: None
    files: Callable[[], Mapping[str, bytes]] = dict


def trial_content(paths: StudyPaths, trial: TrialId, params: Mapping[str, Any], outcome: Outcome | None) -> Wanted:
    """Return what the run of a trial, or of the baseline, shall hold.

    Args:
        paths: the study's files.
        trial: which one.
        params: its searched parameters.
        outcome: how it ended; None = it is running. A pruned trial's row tells the epoch (else its last row).
    """
    return Wanted(
        name="baseline" if trial.number is None else f"trial {trial.number:04d}",
        status=_STATUSES[outcome.state] if outcome else "RUNNING",
        params=params,
        tags=_outcome_tags(paths, trial, outcome) if outcome else {},
        points=partial(_epochs, paths.rows(trial)),
        figures=partial(_test_figures, paths.test(trial)),
        files=partial(_trial_files, paths.trial(trial)),
    )


def trial_contents(paths: StudyPaths, states: TrialStates) -> dict[RunKey, Wanted]:
    """Return what the runs of all trials shall hold while nobody works on them: one that has not ended is killed."""
    return {
        RunKey.of_trial(trial): trial_content(paths, trial, params, outcome or Outcome("interrupted"))
        for trial, (params, outcome) in states.items()
    }


def generator_content(
    params: Mapping[str, Any], steps: Mapping[int, Point], status: Status, samples: Path | None = None
) -> Wanted:
    """Return what the generator's run shall hold.

    Args:
        params: its settings.
        steps: the losses by training step; may grow later.
        status: MLflow's status.
        samples: picture of its draws.
    """
    return Wanted(
        name="generator",
        status=status,
        params=params,
        points=lambda: [steps[step] for step in sorted(steps)],
        files=partial(_contents, [samples] if samples else []),
    )


def loss_points(steps: Sequence[TrainingStep]) -> dict[int, Point]:
    """Return the losses of a generator's training steps by step, as of now."""
    now_ms = int(1000 * time.time())
    return {step.step: Point(step.step, step.losses, now_ms) for step in steps}


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
        figures=partial(_summary_figures, summary, _written_ms(paths.summary)) if summary else lambda: None,
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


def _outcome_tags(paths: StudyPaths, trial: TrialId, outcome: Outcome) -> dict[str, str]:
    tags = {_REASON: outcome.reason[:_REASON_LENGTH]} if outcome.reason else {}
    if outcome.state == "pruned":
        row = outcome.row or next(reversed(read_rows(paths.rows(trial))), {})
        tags[_PRUNED] = str(row.get("epoch", 0))
    return tags


def _epochs(rows: Path) -> list[Point]:
    return [_epoch(row) for row in read_rows(rows)]


def _epoch(row: Mapping[str, Any]) -> Point:
    names = [name for name in row if name in _LOGGED or name.startswith("val/")]
    metrics = {name: float(row[name]) for name in names if isinstance(row[name], int | float)}
    return Point(row["epoch"], metrics, int(1000 * row.get("ended_at", time.time())))


def _test_figures(place: Path) -> Point | None:
    found = read_object(place)  # a damaged one is measured again, if at all
    return Point(0, found["metrics"], _written_ms(place)) if found else None


def _summary_figures(summary: Mapping[str, Any], time_ms: int) -> Point:
    """Return the summary's numbers; the step is the number of trials, so a study that grew has one value a size."""
    metrics = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    for role in ("best", "baseline"):
        chosen = summary.get(role) or {"val": {}, "test": {}}
        metrics |= {f"{role}/{name}": value for name, value in {**chosen["val"], **chosen["test"]}.items()}
    finite = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
    return Point(sum(summary.get("trials", {}).values()), finite, time_ms)


def _trial_files(directory: Path) -> dict[str, bytes]:
    return _contents([directory / "rows.jsonl", *write_per_class(directory)])


def _study_files(paths: StudyPaths) -> dict[str, bytes]:
    files = _contents([paths.spec, paths.summary])
    return {name: without_password(content.decode()).encode() for name, content in files.items()}


def _contents(places: Sequence[Path]) -> dict[str, bytes]:
    return {place.name: place.read_bytes() for place in places if place.exists()}


def _written_ms(place: Path) -> int:
    return int(1000 * (place.stat().st_mtime if place.exists() else time.time()))


def _note(summary: Mapping[str, Any]) -> str:
    """Return the parent run's description in Markdown: the best trial beside the baseline."""
    best, baseline = summary["best"], summary["baseline"] or {"val": {}, "test": {}}
    if best is None:
        return "No trial finished."
    params = ", ".join(f"{name} = {value}" for name, value in best["params"].items())
    lines = [
        f"Best on validation: trial {best['number']} ({params})",
        "",
        "| metric | baseline | best |",
        "|---|---|---|",
    ]
    for split in ("val", "test"):
        for name, value in best[split].items():
            beside = baseline[split].get(name)
            lines.append(f"| {name} | {'-' if beside is None else f'{beside:.4f}'} | {value:.4f} |")
    return "\n".join(lines)
