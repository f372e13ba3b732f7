"""A study that this process runs, and how; at its end, times and MLflow statuses are recorded."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gitdist.data.dataset import Dataset
from gitdist.errors import GitdistError, StudyError
from gitdist.spec import ResourcesSpec, StudySpec
from gitdist.store import Store
from gitdist.study.compatibility import StudyWeights
from gitdist.study.files.events import Observer, TrainingProgress
from gitdist.study.files.times import STUDY, Times
from gitdist.study.ledger.lease import Lease
from gitdist.study.monitoring.display import Display
from gitdist.study.monitoring.mlflow.content import Status, study_status
from gitdist.study.monitoring.mlflow.system_metrics import SystemMetrics
from gitdist.study.monitoring.mlflow.tracker import Tracker
from gitdist.study.monitoring.monitor import Monitor, StreamWaitTotal
from gitdist.study.study import Study
from gitdist.study.study_record import open_tracker


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How to run a study.

    Attributes:
        address: Ray cluster to join; None = ``$RAY_ADDRESS``, else start Ray on this machine.
        take_over: take over from a driver that seems to be alive.
        retry_failed: retry the failed trials.
        confirm: called with an estimate before a study begins that takes more than a day; what it raises ends the
            study. None = such a study begins unasked.
        on_ray_death: called last when Ray has died, with whether this process started Ray and whether it trained any
            epoch; must not return. None = RayUnavailableError is raised.
        observers: receive the events of the trials after all others.
        study_file: the file that the study was read from, shown in MLflow; None = it was not read from a file.
    """

    address: str | None = None
    take_over: bool = False
    retry_failed: bool = False
    confirm: Callable[[str], None] | None = None
    on_ray_death: Callable[[bool, bool], None] | None = None
    observers: Sequence[Observer] = ()
    study_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RunningStudy:
    """A study that this process owns and runs; ``observers`` receive the events of its trials."""

    study: Study
    store: Store
    dataset: Dataset
    weights: StudyWeights
    lease: Lease
    display: Display
    times: Times
    tracker: Tracker
    stream_wait: StreamWaitTotal
    progress: TrainingProgress
    observers: tuple[Observer, ...]
    started_s: float

    @property
    def spec(self) -> StudySpec:
        """The study's spec."""
        return self.study.spec

    def with_resources(self, resources: ResourcesSpec) -> "RunningStudy":
        """Return the same study with other resources; its stored spec and ledger keep theirs."""
        spec = self.spec.model_copy(update={"resources": resources})
        return replace(self, study=replace(self.study, spec=spec))

    def report_wait(self, what: str, waited_s: float) -> None:
        """Log that ``what`` waits for free capacity on the cluster."""
        self.lease.check()
        self.display.log(f"waiting for capacity for {what}, since {waited_s:.0f} s")

    def close(self, status: Status, timeout_s: float | None = None) -> None:
        """Record the end; set open MLflow runs to ``status``, waiting for MLflow as ``Tracker.close`` does."""
        if self.times.span(STUDY).ended_at is None:
            with suppress(GitdistError):  # a full disk may have ended the study
                self.times.ended(STUDY)
        self.tracker.close(status, timeout_s)


@contextmanager
def start_study(
    study: Study,
    store: Store,
    dataset: Dataset,
    weights: StudyWeights,
    lease: Lease,
    identity: str,
    display: Display,
    options: RunOptions,
) -> Iterator[RunningStudy]:
    """Record that this process starts to run the study; at the end of the block, record the end in files and MLflow.

    If another driver has taken over the study, nothing is written at the end.
    """
    started_s = time.perf_counter()
    with Times.open(study.paths) as times:
        times.started(STUDY)
        states = study.trial_states()
        tracker = open_tracker(
            study, dataset.fingerprint, options.study_file, identity, display.log, lease.check, times
        )
        tracker.reconcile(states)
        display.show_study(study)
        progress, stream_wait = TrainingProgress(), StreamWaitTotal(study.paths, states)
        running = RunningStudy(
            study=study,
            store=store,
            dataset=dataset,
            weights=weights,
            lease=lease,
            display=display,
            times=times,
            tracker=tracker,
            stream_wait=stream_wait,
            progress=progress,
            observers=(display, tracker, progress, stream_wait, *options.observers),
            started_s=started_s,
        )
        try:
            yield running
        finally:
            if _is_owner(lease):
                running.close(_unfinished_status(study))
            else:
                tracker.abandon()  # the new owner writes the statuses


def open_monitor(running: RunningStudy) -> Monitor:
    """Return the monitor of a study, which polls the stream and this machine inside its block."""
    show, on_write = running.display.stream, running.tracker.monitor_logged
    return Monitor(running.study.paths, running.stream_wait, SystemMetrics().measure, show, on_write)


def finish_study(running: RunningStudy, summary: Mapping[str, Any]) -> None:
    """Record that the study is finished."""
    running.times.ended(STUDY)
    running.tracker.study_ended(summary)


def _is_owner(lease: Lease) -> bool:
    with suppress(StudyError):
        lease.check()
    return not lease.lost


def _unfinished_status(study: Study) -> Status:
    """Return the parent run's status if the study has not finished."""
    with suppress(Exception):  # an error here must not hide the error that ended the study
        return study_status(study.trial_states(), study.ledger.num_open(), finished=False)
    return "KILLED"  # the ledger is gone
