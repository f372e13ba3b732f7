"""What the MLflow runs of a study shall hold; the study's files are the truth, and MLflow is a copy of them.

rows.jsonl --> one point an epoch           test.json --> test metrics
rows.jsonl, per-class table and figure, samples.png --> files           (the parent run: parent.py)
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from gitdist.disk import read_object
from gitdist.generator.base import TrainingStep
from gitdist.study.files.attribution import ReusedPrefix, Shared, own_rows, trainer_name
from gitdist.study.files.events import Outcome, Row, TrialStates
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.files.times import Span, Times
from gitdist.study.ledger.repeats import read_links
from gitdist.study.monitoring.mlflow.figures import write_per_class

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
class DesiredRun:
    """What one run shall hold. The callables read it when it is written, so it is never older than the files.

    Args:
        name: the run's name.
        status: MLflow's status.
        params: the run's parameters.
        tags: tags beside those of all runs of the study.
        points: the curves, by rising step.
        span: when the run started and ended.
        figures: single values, None where there are none.
        files: contents by name; asked for once the run has ended.
    """

    name: str
    status: Status
    params: Mapping[str, Any] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    points: Callable[[], Sequence[Point]] = tuple
    span: Callable[[], Span] = Span
    figures: Callable[[], Point | None] = lambda: None
    files: Callable[[], Mapping[str, bytes]] = dict


def trial_content(
    paths: StudyPaths, trial: TrialId, params: Mapping[str, Any], outcome: Outcome | None, times: Times | None = None
) -> DesiredRun:
    """Return what the run of a trial, or of the baseline, shall hold.

    Args:
        paths: the study's files.
        trial: which one.
        params: its searched parameters.
        outcome: how it ended; None = it is running. A pruned trial's row tells the epoch (else its last row).
        times: the study's; None = they are read now.
    """
    return DesiredRun(
        name="baseline" if trial.number is None else f"trial {trial.number:04d}",
        status=_STATUSES[outcome.state] if outcome else "RUNNING",
        params=params,
        tags=_outcome_tags(paths, trial, outcome) if outcome else {},
        points=partial(_epochs, paths.rows(trial)),
        span=partial(trial_span, paths, trial, times or Times(paths)),
        figures=partial(_test_figures, paths.test(trial)),
        files=partial(_trial_files, paths.trial(trial)),
    )


def trial_contents(paths: StudyPaths, states: TrialStates, times: Times) -> dict[RunKey, DesiredRun]:
    """Return what the runs of all trials shall hold while nobody works on them: one that has not ended is killed."""
    return {
        RunKey.of_trial(trial): trial_content(paths, trial, params, outcome or Outcome("interrupted"), times)
        for trial, (params, outcome) in states.items()
    }


def generator_content(
    params: Mapping[str, Any],
    steps: Mapping[int, Point],
    status: Status,
    span: Callable[[], Span],
    samples: Path | None = None,
) -> DesiredRun:
    """Return what the generator's run shall hold.

    Args:
        params: its settings.
        steps: the losses by training step; may grow later.
        status: MLflow's status.
        span: when the study began to train it or to look for it in the store, and when it had it.
        samples: picture of its draws.
    """
    return DesiredRun(
        name="generator",
        status=status,
        params=params,
        points=lambda: [steps[step] for step in sorted(steps)],
        span=span,
        files=partial(file_contents, [samples] if samples else []),
    )


def loss_points(steps: Sequence[TrainingStep], at: float | None = None) -> dict[int, Point]:
    """Return the losses of a generator's training steps by step.

    Args:
        steps: training steps.
        at: their time in seconds since 1970; None = now.
    """
    time_ms = to_ms(time.time() if at is None else at)
    return {step.step: Point(step.step, step.losses, time_ms) for step in steps}


def trial_span(paths: StudyPaths, trial: TrialId, times: Times) -> Span:
    """Return when a trial itself started and ended; what it took from a shared prefix happened at another time.

    Where no end was noted (its driver was killed), it is that of its last own epoch. A trial of gitdist 0.5 starts with
    its first own epoch, or with ``trial.json`` if it has none.
    """
    noted, described = times.span(str(trial)), paths.trial(trial) / "trial.json"
    own = [row for row in own_rows(read_rows(paths.rows(trial)), trainer_name(paths, trial)) if "ended_at" in row]
    starts = [] if noted.started_at is None else [noted.started_at]
    if own:
        starts.append(own[0]["ended_at"] - own[0].get("train_s", 0.0) - own[0].get("evaluating_s", 0.0))
    elif not starts and described.exists():
        starts.append(written_at(described))
    start = min(starts, default=None)
    return Span(start, noted.ended_at or (own[-1]["ended_at"] if own else start))


def to_ms(seconds: float) -> int:
    """Return MLflow's form of a time in seconds since 1970."""
    return int(1000 * seconds)


def _outcome_tags(paths: StudyPaths, trial: TrialId, outcome: Outcome) -> dict[str, str]:
    rows = read_rows(paths.rows(trial))
    tags = {_REASON: outcome.reason[:_REASON_LENGTH]} if outcome.reason else {}
    if outcome.state == "pruned":
        row = outcome.row or next(reversed(rows), {})
        tags[_PRUNED] = str(row.get("epoch", 0))
    links = read_links(read_object(paths.trial(trial) / "trial.json") or {})
    return tags | {f"gitdist.{name}": str(number) for name, number in links.items()} | _shared_tags(paths, trial, rows)


def _shared_tags(paths: StudyPaths, trial: TrialId, rows: Sequence[Row]) -> dict[str, str]:
    """Say which prefix the trial began with, whose work that was, and what it saved."""
    prefix = ReusedPrefix.read(paths.trial(trial))
    tags = {"gitdist.prefix": prefix.key} if prefix else {}
    shared = Shared.of(rows, trainer_name(paths, trial), prefix)
    if shared is not None:
        tags["gitdist.prefix_trained_by"] = shared.trained_by
        tags["gitdist.prefix_epochs"] = str(shared.epochs)
        tags["gitdist.prefix_saved_s"] = f"{shared.saved_s:.1f}"
    return tags


def _epochs(rows: Path) -> list[Point]:
    return [_epoch(row) for row in read_rows(rows)]


def _epoch(row: Mapping[str, Any]) -> Point:
    names = [name for name in row if name in _LOGGED or name.startswith("val/")]
    metrics = {name: float(row[name]) for name in names if isinstance(row[name], int | float)}
    return Point(row["epoch"], metrics, to_ms(row.get("ended_at", time.time())))


def _test_figures(place: Path) -> Point | None:
    found = read_object(place)  # a damaged one is measured again, if at all
    return Point(0, found["metrics"], to_ms(found.get("evaluated_at") or written_at(place))) if found else None


def _trial_files(directory: Path) -> dict[str, bytes]:
    return file_contents([directory / "rows.jsonl", *write_per_class(directory)])


def file_contents(places: Sequence[Path]) -> dict[str, bytes]:
    """Return the content of those of the files that exist, by name."""
    return {place.name: place.read_bytes() for place in places if place.exists()}


def written_at(place: Path) -> float:
    """Return when a file was last written, in seconds since 1970; now where it does not exist.

    A copy of the file has another time, so this is only for files of gitdist 0.5, which do not hold it themselves.
    """
    return place.stat().st_mtime if place.exists() else time.time()
