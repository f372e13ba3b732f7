"""The desired content of a study's MLflow runs. The study's files are authoritative, MLflow is a copy of them.

trial       rows.jsonl --> one step per epoch; test.json --> test metrics; rows, per-class table and figure --> files
generator   training losses --> one step each; samples.png --> file
parent run  watch.jsonl --> one step per line; summary.json --> metrics, note and tables; spec and summary --> files
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

from gitdist.address import without_secrets
from gitdist.errors import IncompleteFileError
from gitdist.generator.base import TrainingStep
from gitdist.study.files.attribution import ReusedPrefix, SharedEpochs, epoch_seconds, own_rows, trainer_name
from gitdist.study.files.events import Outcome, TrialStates
from gitdist.study.files.json_files import Description, ResultOnTest, Usage, check_json, read_json, read_links
from gitdist.study.files.json_lines import read_lines
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import parse_rows, read_rows
from gitdist.study.files.samples import read_samples
from gitdist.study.files.times import GENERATOR, STUDY, Span, Times
from gitdist.study.monitoring.mlflow.figures import write_per_class
from gitdist.study.monitoring.mlflow.notes import (
    REASON_LENGTH,
    Note,
    generator_note,
    study_note,
    summary_files,
    summary_metrics,
    trial_note,
)
from gitdist.study.monitoring.mlflow.system_metrics import PREFIX
from gitdist.trial.epoch_row import EpochRow

Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]

_STATUSES: dict[str, Status] = {
    "finished": "FINISHED",
    "pruned": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
_STREAM_METRICS = ("stream/images_per_s", "stream/window_blocks", "stream/server_utilisation", "stream/waiting_s")
_WATCH_FIELDS = ("step", "at")  # numbers in every line of the monitor's log
_PREFIX = "hash.prefix"
_REASON, _PRUNED = "gitdist.reason", "gitdist.pruned"
_ENDED_AT = "ended_at"  # field of the summary that is a time, not a metric

EPOCH_METRICS = {
    "train/loss": "loss",
    "train/accuracy": "accuracy",
    "lr": "lr",
    "draws": "draws",
    "waiting_s": "waiting_s",
}
"""What MLflow shows of an ``EpochRow`` in addition to its ``metrics``: attributes by the name of the metric."""

OUTCOME_TAGS = (_REASON, _PRUNED)
"""Tags with a trial's outcome, which are deleted if it runs again."""


@dataclass(frozen=True)
class RunKey:
    """Identifies a study's run: the parent run ("study"), the generator's, the baseline's, or a trial's by number."""

    role: str
    number: int | None = None

    @classmethod
    def of_trial(cls, trial: TrialId) -> Self:
        """Return the key of a trial or the baseline."""
        return cls(trial.role, trial.number)

    @classmethod
    def of_tags(cls, tags: Mapping[str, str]) -> Self:
        """Return the key in a run's tags."""
        number = tags.get("gitdist.trial")
        return cls(tags["gitdist.role"], None if number is None else int(number))

    @property
    def tags(self) -> dict[str, str]:
        """The tags that identify the run."""
        number = {} if self.number is None else {"gitdist.trial": str(self.number)}
        return {"gitdist.role": self.role, **number}


STUDY_RUN, GENERATOR_RUN = RunKey("study"), RunKey("generator")


@dataclass(frozen=True)
class StepMetrics:
    """Metrics of one step, and its time in seconds since 1970."""

    step: int
    values: Mapping[str, float]
    time_s: float

    @classmethod
    def of_row(cls, row: EpochRow) -> "StepMetrics":
        """Return the metrics of an epoch's row."""
        values = {name: float(getattr(row, attribute)) for name, attribute in EPOCH_METRICS.items()}
        return cls(row.epoch, {**values, **row.metrics}, time.time() if row.ended_at is None else row.ended_at)

    @property
    def time_ms(self) -> int:
        """The time in milliseconds, as MLflow stores it."""
        return int(1000 * self.time_s)


@dataclass(frozen=True, kw_only=True)
class DesiredRun:
    """The desired content of one run. The callables run when it is written, so it is as new as the files."""

    name: str
    status: Status
    note: Note
    params: Mapping[str, Any] = field(default_factory=dict)  # searched fields, of a trial
    tags: Callable[[], Mapping[str, str]] = dict  # in addition to those of all runs of the study
    steps: Callable[[], Sequence[StepMetrics]] = tuple  # the curves, by rising step
    final: Callable[[], StepMetrics | None] = lambda: None  # metrics with a single value, if any
    span: Callable[[], Span] = Span
    files: Callable[[], Mapping[str, bytes]] = dict  # contents by name; written once the run has ended
    model: Callable[[], Path | None] = lambda: None  # directory of its MLflow model, if it is saved
    registered_as: str | None = None  # name in the model registry


def trial_run(
    paths: StudyPaths, trial: TrialId, params: Mapping[str, Any], outcome: Outcome | None, times: Times
) -> DesiredRun:
    """Return the desired run of a trial or of the baseline, which is running if it has no outcome."""
    return DesiredRun(
        name="baseline" if trial.number is None else f"trial {trial.number:04d}",
        status=_STATUSES[outcome.state] if outcome else "RUNNING",
        note=partial(trial_note, paths, trial, params, outcome),
        params=params,
        tags=partial(_outcome_tags, paths, trial, outcome) if outcome else dict,
        steps=lambda: [StepMetrics.of_row(row) for row in _read_rows(paths.rows(trial))],
        span=partial(_trial_span, paths, trial, times),
        final=partial(_test_metrics, paths.test(trial)),
        files=partial(_trial_files, paths.trial(trial)),
        model=partial(_saved_model, paths.model(trial)),
    )


def trial_runs(paths: StudyPaths, states: TrialStates, times: Times) -> dict[RunKey, DesiredRun]:
    """Return the desired runs of all trials while no driver runs the study: a trial that has not ended is KILLED."""
    return {
        RunKey.of_trial(trial): trial_run(paths, trial, params, outcome or Outcome("interrupted"), times)
        for trial, (params, outcome) in states.items()
    }


def registered_run(
    desired: Mapping[RunKey, DesiredRun], summary: Mapping[str, Any] | None, name: str | None
) -> dict[RunKey, DesiredRun]:
    """Return the desired run of the best trial, with its model registered as ``name``; {} without such a trial."""
    best = summary and summary["best"]
    if not best or name is None:
        return {}
    key = RunKey("trial", best["number"])
    return {key: replace(desired[key], registered_as=name)} if key in desired else {}


def generator_run(paths: StudyPaths, losses: Mapping[int, StepMetrics], status: Status, times: Times) -> DesiredRun:
    """Return the desired run of the generator; ``losses`` by training step may grow later."""
    return DesiredRun(
        name="generator",
        status=status,
        note=generator_note,
        steps=lambda: [losses[step] for step in sorted(losses)],
        span=partial(generator_span, paths, times),
        files=partial(_generator_files, paths) if status == "FINISHED" else dict,
    )


def parent_run(paths: StudyPaths, status: Status, summary: Mapping[str, Any] | None, times: Times) -> DesiredRun:
    """Return the desired parent run; without a summary the study has not finished."""
    return DesiredRun(
        name=paths.name,
        status=status,
        note=partial(study_note, summary),
        steps=partial(_monitor_metrics, paths),
        span=partial(_study_span, paths, times, summary),
        final=partial(_summary_metrics, paths, summary) if summary else lambda: None,
        files=partial(_study_files, paths, summary),
    )


def study_status(states: TrialStates, num_open: int, finished: bool) -> Status:
    """Return the parent run's status while no driver runs the study; ``finished``: it has a summary."""
    ended = {outcome and outcome.state for _, outcome in states.values()}
    if num_open or not ended <= {"finished", "pruned", "failed"}:
        return "KILLED"
    searched = {outcome.state for trial, (_, outcome) in states.items() if outcome and trial.role == "trial"}
    if searched and "finished" not in searched:
        return "FAILED"
    return "FINISHED" if finished else "KILLED"


def loss_metrics(steps: Sequence[TrainingStep], at: float | None = None) -> dict[int, StepMetrics]:
    """Return the losses of a generator's training by step; ``at`` in seconds since 1970, None = now."""
    time_s = time.time() if at is None else at
    return {step.step: StepMetrics(step.step, step.losses, time_s) for step in steps}


def generator_span(paths: StudyPaths, times: Times) -> Span:
    """Return when the study began to train its generator, or to search the store for it, and when it had it.

    In a study of gitdist 0.5, it ended when the first trial started; its length is in the drivers' usage files.
    """
    span = times.span(GENERATOR)
    if span.started_at is not None:
        return span
    starts = [each.started_at for each in _trial_spans(paths, times) if each.started_at is not None]
    end = min(starts, default=None)
    usages = [read_json(file, Usage) or {} for file in sorted(paths.usage.glob("*.json"))]
    return Span(end and end - sum(usage.get("generator_training_s", 0.0) for usage in usages), end)


def _trial_span(paths: StudyPaths, trial: TrialId, times: Times) -> Span:
    """Return when a trial itself started and ended, without the epochs of a shared prefix.

    If its driver was killed, it ended with its last own epoch. A trial of gitdist 0.5 started with its first own epoch,
    or when its ``trial.json`` was written.
    """
    span, description = times.span(str(trial)), paths.description(trial)
    own = own_rows(read_rows(paths.rows(trial)), trainer_name(paths, trial))
    starts = [] if span.started_at is None else [span.started_at]
    dated = [(row.ended_at, row) for row in own if row.ended_at is not None]
    if dated:
        first_end, first = dated[0]
        starts.append(first_end - epoch_seconds([first]))
    elif not starts and description.exists():
        starts.append(_modified_at(description))
    start = min(starts, default=None)
    return Span(start, span.ended_at or (dated[-1][0] if dated else start))


def _study_span(paths: StudyPaths, times: Times, summary: Mapping[str, Any] | None) -> Span:
    """Return when the study's first driver started and its last one ended.

    If the last driver was killed, the study ended with its summary, else at the latest time in any file. A study of
    gitdist 0.5 started with its first trial, or, if earlier, its drivers' total time before its end.
    """
    span, trials = times.span(STUDY), _trial_spans(paths, times)
    starts = [each.started_at for each in (span, *trials) if each.started_at is not None]
    end = span.ended_at or (summary or {}).get(_ENDED_AT)
    if end is None:
        monitored = [line["at"] for line in _monitor_lines(paths)[-1:]]
        ends = [each.ended_at for each in trials if each.ended_at is not None]
        end = max([*monitored, *starts, *ends], default=None)
    if span.started_at is None and summary and end is not None:
        starts.append(end - summary.get("wall_s", 0.0))
    return Span(min(starts, default=None), end)


def _trial_spans(paths: StudyPaths, times: Times) -> list[Span]:
    return [_trial_span(paths, trial, times) for trial in (BASELINE, *paths.stored_trials())]


def _outcome_tags(paths: StudyPaths, trial: TrialId, outcome: Outcome) -> dict[str, str]:
    """Return tags with a trial's outcome, the trial that it repeats, and its shared prefix, trainer and saved time."""
    rows = _read_rows(paths.rows(trial))
    tags = {_REASON: outcome.reason[:REASON_LENGTH]} if outcome.reason else {}
    if outcome.state == "pruned":
        tags[_PRUNED] = str(outcome.epoch or len(rows))
    links = read_links(read_json(paths.description(trial), Description) or {})
    tags |= {f"gitdist.{name}": str(number) for name, number in links.items()}
    prefix = ReusedPrefix.read(paths.trial(trial))
    if prefix is not None:
        tags[_PREFIX] = prefix.key
    shared = SharedEpochs.of(rows, trainer_name(paths, trial), prefix)
    if shared is not None:
        tags["gitdist.prefix_trained_by"] = shared.trained_by
        tags["gitdist.prefix_epochs"] = str(shared.epochs)
        tags["gitdist.prefix_saved_s"] = f"{shared.saved_s:.1f}"
    return tags


def _test_metrics(file: Path) -> StepMetrics | None:
    result = check_json(file, ResultOnTest)  # if damaged, the trial is evaluated again if it is chosen
    if result is None:
        return None
    return StepMetrics(0, result["metrics"], result.get("evaluated_at") or _modified_at(file))


def _trial_files(directory: Path) -> dict[str, bytes]:
    return _read_files([directory / "rows.jsonl", directory / "test.json", *write_per_class(directory)])


def _saved_model(directory: Path) -> Path | None:
    return directory if directory.is_dir() else None


def _generator_files(paths: StudyPaths) -> dict[str, bytes]:
    samples = read_samples(paths)
    return {} if samples is None else {paths.samples.name: samples}


def _monitor_metrics(paths: StudyPaths) -> list[StepMetrics]:
    steps = []
    for line in _monitor_lines(paths):
        values = {
            name: float(value) for name, value in line.items() if name in _STREAM_METRICS or name.startswith(PREFIX)
        }
        if values:
            steps.append(StepMetrics(line["step"], values, line["at"]))
    return steps


def _summary_metrics(paths: StudyPaths, summary: Mapping[str, Any]) -> StepMetrics:
    """Return the summary's metrics; the step is the number of trials, so an extended study has one value per size."""
    num_trials = sum(summary.get("trials", {}).values())
    return StepMetrics(num_trials, summary_metrics(summary), summary.get(_ENDED_AT) or _modified_at(paths.summary))


def _study_files(paths: StudyPaths, summary: Mapping[str, Any] | None) -> dict[str, bytes]:
    files = _read_files([paths.spec, paths.summary])
    files = {name: without_secrets(content.decode()).encode() for name, content in files.items()}
    return {**files, **(summary_files(summary) if summary else {})}


def _read_rows(path: Path) -> list[EpochRow]:
    """Return the rows of a file; raise IncompleteFileError if a field is missing or not a number."""
    rows, damage = parse_rows(path)
    if damage:
        raise damage
    return rows


def _monitor_lines(paths: StudyPaths) -> list[dict[str, Any]]:
    """Return the lines of the monitor's log; raise IncompleteFileError if a field is missing or not a number."""
    lines = read_lines(paths.monitor_log)
    for number, line in enumerate(lines, start=1):
        for name in _WATCH_FIELDS:
            if not isinstance(line.get(name), int | float):
                raise IncompleteFileError(paths.monitor_log, name, number)
    return lines


def _read_files(paths: Sequence[Path]) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def _modified_at(path: Path) -> float:
    """Return a file's modification time in seconds since 1970; now if it does not exist.

    A copied file has another time, so use this only for files of gitdist 0.5, which do not contain their time.
    """
    return path.stat().st_mtime if path.exists() else time.time()
