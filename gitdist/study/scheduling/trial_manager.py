"""Decides which trial runs next, whether it continues and how it ended. Does not use Ray.

    executor (``tune_adapter``)             TrialManager
    asks for a trial         --next_job-->          interrupted trials first, then the ledger's next one
    has no free capacity     --on_no_capacity-->
    has started a worker     --on_start-->
    receives a report        --on_report-->         rows: reported to the ledger; continue, or prune?
                                                    no rows: the trial waits; continue?
                                                    failed, halt or disk: stored until the trial ends
    sees a trial end         --on_complete-->       finished, pruned, failed or interrupted
    loses a worker           --on_worker_lost-->    rescheduled; failed at the third loss without an epoch,
                                                    or at once if memory ran out

Each decision goes first to the ledger, then to the trial's files (``TrialRecorder``), then to the observers.

Not thread-safe: one caller at a time. Methods do not raise. The first study-wide error (full disk, lost stream, ledger
or lease) is stored in ``error``; no further trials are assigned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal, Protocol, TypeVar, cast

from gitdist.errors import DiskError, GitdistError, StudyError, TrialFailedError
from gitdist.spec import StudySpec
from gitdist.study.files.events import Observer, Outcome
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.ledger.ledger import Ledger, Link
from gitdist.study.study import BASELINE_FAILURE
from gitdist.study.worker.job import TrialJob
from gitdist.trial.epoch_row import EpochRow

MAX_LOSSES = 3  # worker losses without an epoch in between
ENDINGS = ("failed", "halt", "disk")  # keys of a trial's last report without a result, see ``worker.failures``
LossCause = Literal["worker", "memory", "node"]  # the loss of a node is not counted against the trial
Method = TypeVar("Method", bound=Callable[..., Any])
_OUT_OF_MEMORY = (
    "its worker ran out of memory; lower trial.batch_size, or run fewer trials at once with resources.max_concurrent"
)


class TrialRecorder(Protocol):
    """Writes the driver's records of its trials."""

    def record_start(self, trial: TrialId) -> None:
        """Record that a trial started or was resumed."""

    def record_epoch(self, trial: TrialId, row: EpochRow) -> None:
        """Record that a trial completed an epoch."""

    def record_end(self, trial: TrialId, outcome: Outcome) -> None:
        """Record that a trial ended or was interrupted."""


@dataclass
class _Running:
    job: TrialJob
    params: Mapping[str, Any]
    started: bool = False
    row: EpochRow | None = None  # the last one
    ending: dict[str, str] = field(default_factory=dict)  # its report under a key of ENDINGS
    pruned: bool = False
    has_mlflow_run: bool = False  # in the ledger

    @property
    def epoch(self) -> int | None:
        """The last epoch that was reported, if any."""
        return self.row.epoch if self.row else None


def _storing_error(default: Any = None) -> Callable[[Method], Method]:
    """Decorate a method: instead of raising, it stores the first error in ``error`` and returns ``default``."""

    def decorate(method: Method) -> Method:
        @wraps(method)
        def call(self: "TrialManager", *arguments: Any) -> Any:
            try:
                return method(self, *arguments)
            except GitdistError as error:
                self.error = self.error or error
                return default

        return cast(Method, call)

    return decorate


class TrialManager:
    """Decides what the trials of one driver do; see the module's diagram."""

    def __init__(
        self,
        ledger: Ledger,
        spec: StudySpec,
        *,
        with_baseline: bool,
        recorder: TrialRecorder,
        observers: Sequence[Observer],
        check_owner: Callable[[bool], None] = lambda thorough: None,
        link: Link | None = None,
        mlflow_run: Callable[[TrialId], str | None] = lambda trial: None,
    ) -> None:
        """Start with no trial running.

        ``check_owner`` raises StudyError once another driver has taken over the study; it reads the storage if its
        argument is true. ``link`` finds the trial that a new one repeats, see ``Ledger.next_trial``. ``mlflow_run``
        returns the id of a trial's MLflow run, if it is known, without waiting for MLflow.
        """
        self._ledger, self._spec, self._link, self._mlflow_run = ledger, spec, link, mlflow_run
        self._recorder, self._observers, self._check_owner = recorder, tuple(observers), check_owner
        self._baseline_due = with_baseline
        self._ask_ledger = True
        self._running: dict[TrialId, _Running] = {}
        self._last_epoch: dict[TrialId, int] = {}  # over all workers of a trial
        self._losses: dict[TrialId, int] = {}  # of workers since that epoch
        self._stopping = False
        self.error: GitdistError | None = None

    @property
    def running(self) -> list[TrialId]:
        """The trials that were assigned and have not ended."""
        return list(self._running)

    @property
    def idle(self) -> bool:
        """Whether no assigned trial has a started worker."""
        return not any(running.started for running in self._running.values())

    @property
    def stopping(self) -> bool:
        """Whether trials stop after their current epoch."""
        return self._stopping

    @property
    def done(self) -> bool:
        """Whether no trial will be assigned any more."""
        if self._stopping or self.error:
            return True
        return not (self._baseline_due or self._running or self._ask_ledger)

    def stop(self) -> None:
        """Assign no more trials and stop each running one after its current epoch; the next driver resumes them."""
        self._stopping = True

    @_storing_error()
    def next_job(self) -> TrialJob | None:
        """Return a trial to run; None if there is none now (if ``done``, there will be none)."""
        self._check_owner(False)
        while not (self._stopping or self.error):
            if self._baseline_due:
                self._baseline_due = False
                return self._assign(TrialJob.create(self._spec, BASELINE, {}), {})
            record = self._ledger.next_trial(self._link) if self._ask_ledger else None
            self._ask_ledger = record is not None  # if None, ask again after a trial has ended
            if record is None:
                return None
            trial = TrialId("trial", record.number)
            reported_epoch = max(record.curve, default=0)
            try:
                job = TrialJob.create(
                    self._spec, trial, record.params, links=record.links, reported_epoch=reported_epoch
                )
            except TrialFailedError as error:  # the combination of parameters breaks a rule
                self._fail_unstarted(trial, record.params, str(error))
            else:
                return self._assign(job, record.params)
        return None

    @_storing_error()
    def on_no_capacity(self, waited_s: float) -> None:
        """Handle that no assigned trial has found free capacity for ``waited_s`` seconds."""
        self._check_owner(False)
        for observer in self._observers:
            observer.no_capacity(waited_s)

    @_storing_error()
    def on_start(self, trial: TrialId) -> None:
        """Handle that a trial's worker has started."""
        running = self._running[trial]
        running.started = True
        self._recorder.record_start(trial)
        for observer in self._observers:
            observer.trial_started(trial, running.params)
        if links := running.job.links:
            for observer in self._observers:
                observer.trial_linked(trial, links)

    @_storing_error(False)
    def on_report(self, trial: TrialId, report: Mapping[str, Any]) -> bool:
        """Handle a worker's report (``rows``, or one of ``ENDINGS``); return whether the trial continues."""
        self._check_owner(False)
        running = self._running[trial]
        if "rows" not in report:
            running.ending = {key: str(report[key]) for key in ENDINGS if key in report}
            return True
        self._record_mlflow_run(trial)
        if not report["rows"]:
            for observer in self._observers:
                observer.trial_waits(trial)
        for row in report["rows"]:
            running.row = row
            self._recorder.record_epoch(trial, row)
            for observer in self._observers:
                observer.epoch_ended(trial, row)
            if row.epoch > self._last_epoch.get(trial, running.job.reported_epoch):
                self._last_epoch[trial] = row.epoch
                self._losses.pop(trial, None)
            if trial.number is not None and self._ledger.report(trial.number, row.epoch, row.metrics):
                running.pruned = True
                return False
        return not self._stopping or self._is_complete(running)

    @_storing_error()
    def on_complete(self, trial: TrialId) -> None:
        """Handle that a trial returned, or was stopped after ``on_report`` returned False."""
        self._check_owner(False)
        running = self._running[trial]
        self._record_mlflow_run(trial)
        if "disk" in running.ending:
            raise DiskError(running.ending["disk"])
        if "halt" in running.ending:
            raise StudyError(running.ending["halt"])
        if "failed" in running.ending:
            self._fail(trial, running.ending["failed"])
        elif running.pruned:
            self._end(trial, Outcome("pruned", running.epoch))
        elif self._is_complete(running):
            self._finish(trial)
        elif self._stopping or self.error:
            self._interrupt(trial)
        else:
            self.on_worker_lost(trial, "it exited without reporting", "worker")

    @_storing_error()
    def on_worker_lost(self, trial: TrialId, reason: str, cause: LossCause = "worker") -> None:
        """Handle a worker's death: reschedule the trial, or fail it if it ran out of memory or keeps losing workers."""
        self._check_owner(True)  # a new owner's worker may have superseded it
        if self._stopping:  # the workers may have been stopped together with the driver
            self._interrupt(trial)
            return
        running = self._running[trial]
        epoch = self._last_epoch.get(trial, running.job.reported_epoch) + 1
        self._losses[trial] = self._losses.get(trial, 0) + (cause != "node")
        if cause == "memory":
            self._fail(trial, f"{_OUT_OF_MEMORY} (epoch {epoch})")
        elif self._losses[trial] >= MAX_LOSSES:
            runs = "" if self._spec.sharing.stream else f", which runs {self._spec.generator.described} too,"
            lost = f"its worker{runs} was lost {MAX_LOSSES} times in epoch {epoch}, the last time with: {reason}"
            self._fail(trial, lost)
        else:
            if trial.number is None:
                self._baseline_due = True
            else:
                self._ledger.requeue(trial.number)
            self._end(trial, Outcome("interrupted", running.epoch, f"worker lost, trial rescheduled ({reason})"))

    def close(self) -> None:
        """Mark the trials that still run as interrupted."""
        for trial in list(self._running):
            self._interrupt(trial)

    def _assign(self, job: TrialJob, params: Mapping[str, Any]) -> TrialJob:
        self._running[job.trial] = _Running(job, params)
        return job

    def _finish(self, trial: TrialId) -> None:
        row = self._running[trial].row
        assert row is not None, "a complete trial has a last row"
        if trial.number is None:
            self._end(trial, Outcome("finished", row.epoch))
            return
        self._ledger.finish(trial.number, row.metrics)
        record = self._ledger.trials()[trial.number]
        self._end(trial, Outcome("failed" if record.state == "failed" else "finished", row.epoch, record.reason))

    def _record_mlflow_run(self, trial: TrialId) -> None:
        """Record the trial's MLflow run in the ledger as soon as its id is known: once it has ended, it is too late."""
        running = self._running[trial]
        if trial.number is not None and not running.has_mlflow_run and (run_id := self._mlflow_run(trial)):
            self._ledger.set_mlflow_run(trial.number, run_id)
            running.has_mlflow_run = True

    def _fail(self, trial: TrialId, reason: str) -> None:
        if trial.number is None:
            self._ledger.set_attr(BASELINE_FAILURE, reason)
        else:
            self._ledger.fail(trial.number, reason)
        self._end(trial, Outcome("failed", self._running[trial].epoch, reason))

    def _fail_unstarted(self, trial: TrialId, params: Mapping[str, Any], reason: str) -> None:
        assert trial.number is not None, "the baseline's setting is the study's own"
        self._ledger.fail(trial.number, reason)
        self._recorder.record_start(trial)
        for observer in self._observers:
            observer.trial_started(trial, params)
        outcome = Outcome("failed", None, reason)
        self._recorder.record_end(trial, outcome)
        for observer in self._observers:
            observer.trial_ended(trial, outcome)

    @_storing_error()
    def _interrupt(self, trial: TrialId) -> None:
        if self._running[trial].started:
            self._end(trial, Outcome("interrupted", self._running[trial].epoch))
        else:
            del self._running[trial]

    def _end(self, trial: TrialId, outcome: Outcome) -> None:
        del self._running[trial]
        self._ask_ledger = True
        self._recorder.record_end(trial, outcome)
        for observer in self._observers:
            observer.trial_ended(trial, outcome)

    def _is_complete(self, running: _Running) -> bool:
        return (running.epoch or 0) >= running.job.spec.epochs
