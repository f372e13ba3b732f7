"""Writes a running study to MLflow: one experiment, a parent run, and one run per trial over all of its attempts.

    driver's loop --an event--> desired run, or an epoch's metrics --> Outbox (a thread) --> StudyRuns --> MLflow

The driver's loop never waits for MLflow. Only the driver writes there, so workers need no access to the server.
An epoch's metrics are appended. A run is written from the study's files when it starts and ends, and after an outage;
``sync_study`` adds what a killed driver did not write.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from gitdist.address import without_secrets
from gitdist.errors import DamagedFileError, GitdistError, StudyError
from gitdist.generator.base import TrainingStep
from gitdist.study.cluster.signals import stop_requested
from gitdist.study.files.events import Observer, Outcome, TrialStates
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.times import Times
from gitdist.study.monitoring.mlflow.content import (
    GENERATOR_RUN,
    STUDY_RUN,
    DesiredRun,
    RunKey,
    Status,
    StepMetrics,
    generator_run,
    generator_span,
    loss_metrics,
    parent_run,
    registered_run,
    trial_run,
    trial_runs,
)
from gitdist.study.monitoring.mlflow.description import StudyDescription
from gitdist.study.monitoring.mlflow.outbox import Outbox
from gitdist.study.monitoring.mlflow.runs import StudyRuns
from gitdist.study.monitoring.mlflow.runs_table import table_link, table_view
from gitdist.study.monitoring.mlflow.store import MlflowOutageError, explain, mlflow_errors
from gitdist.trial.epoch_row import EpochRow

_CLOSE_TIMEOUT_S = 20.0  # how long the end of a driver waits for MLflow
_STOP_TIMEOUT_S = 10.0  # the same after a signal, whose sender may kill this process soon

_ALL_RUNS = RunKey("all")  # compares all runs of the store with the desired ones


class Tracker(Observer):
    """Keeps the MLflow runs of one study up to date; one thread calls its methods.

    A new study that reuses an old name has another ``identity``, and so its own runs.
    """

    def __init__(
        self,
        paths: StudyPaths,
        uri: str,
        identity: str,
        description: StudyDescription,
        warn: Callable[[str], None],
        check_owner: Callable[[], None] = lambda: None,
        times: Times | None = None,
        register: str | None = None,
    ) -> None:
        """Open the store, and find or create the study's experiment and parent run, unless a server is down.

        Raises:
            StudyError: the store cannot be used, and this is no outage.
        """
        self._paths, self._uri, self._identity, self._warn = paths, uri, identity, warn
        self._description, self._check_owner, self._times = description, check_owner, times or Times(paths)
        self._register = register  # the best trial's model under this name
        self._runs: StudyRuns | None = None
        self._parent_id: str | None = None  # None = not known yet
        self._abandoned = threading.Event()
        self._warned: set[str] = set()
        self._losses: dict[int, StepMetrics] = {}
        self._desired = {STUDY_RUN: parent_run(paths, "RUNNING", None, self._times)}
        with suppress(MlflowOutageError), mlflow_errors(uri):
            self._deliver(STUDY_RUN, None)
        self._outbox: Outbox[RunKey, StepMetrics] = Outbox(self._deliver, self._warn_of_failure, self._warn_of_recovery)
        self._outbox.enqueue(STUDY_RUN)

    def reconcile(self, states: TrialStates) -> None:
        """Compare all runs with the ledger's trials, and correct what differs; call it before any other event.

        Trials that have not ended are KILLED until they start again, as are runs of unknown trials that an earlier
        driver left RUNNING.
        """
        self._desired = trial_runs(self._paths, states, self._times) | self._desired
        self._outbox.enqueue(_ALL_RUNS)

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Write the trial's run as RUNNING, with the epochs of its rows file."""
        self._set(RunKey.of_trial(trial), trial_run(self._paths, trial, params, None, self._times))

    def epoch_ended(self, trial: TrialId, row: EpochRow) -> None:
        """Append the epoch's metrics to the trial's run."""
        self._outbox.append(RunKey.of_trial(trial), StepMetrics.of_row(row))

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Write the trial's files and status."""
        key = RunKey.of_trial(trial)
        params = self._desired[key].params if key in self._desired else {}
        self._set(key, trial_run(self._paths, trial, params, outcome, self._times))

    def test_evaluated(self, trial: TrialId) -> None:
        """Write the test metrics of a finished trial, which may have ended under an earlier driver."""
        self.trial_ended(trial, Outcome("finished"))

    def model_saved(self, trial: TrialId) -> None:
        """Write the MLflow model of a finished trial, whose run is known."""
        self._outbox.enqueue(RunKey.of_trial(trial))

    def run_id(self, trial: TrialId) -> str | None:
        """Return the id of a trial's run; None if it is not written yet. Does not wait for MLflow."""
        runs = self._runs
        return None if runs is None else runs.known_id(RunKey.of_trial(trial))

    def table_link(self) -> str | None:
        """Return the address of the study's runs in MLflow's UI; None if the store has none, or does not answer."""
        runs = self._runs
        return None if runs is None else table_link(self._uri, runs.experiment_id, self._identity)

    def generator_started(self) -> None:
        """Write the generator's run as RUNNING."""
        self._set(GENERATOR_RUN, generator_run(self._paths, self._losses, "RUNNING", self._times))

    def generator_stepped(self, steps: Sequence[TrainingStep]) -> None:
        """Append the losses of training steps to the generator's run."""
        losses = loss_metrics(steps)
        self._losses |= losses
        for step in losses.values():
            self._outbox.append(GENERATOR_RUN, step)

    def generator_failed(self) -> None:
        """Write the generator's run as FAILED."""
        self._set(GENERATOR_RUN, replace(self._desired[GENERATOR_RUN], status="FAILED"))

    def generator_ended(self, name: str, past: Sequence[TrainingStep]) -> None:
        """Write the generator's run as FINISHED, with ``past`` steps of its training; tag all runs with its name."""
        self._losses |= loss_metrics(past, generator_span(self._paths, self._times).ended_at) | self._losses
        self._description = replace(self._description, generator=name)
        self._desired[GENERATOR_RUN] = generator_run(self._paths, self._losses, "FINISHED", self._times)
        self._outbox.enqueue(*self._desired)

    def monitor_logged(self) -> None:
        """Write the lines of ``watch.jsonl`` that the parent run lacks; any thread may call this."""
        self._outbox.enqueue(STUDY_RUN)

    def study_ended(self, summary: Mapping[str, Any]) -> None:
        """Write the parent run as FINISHED, with the summary and the resolved spec; register the best model."""
        for key, best in registered_run(self._desired, summary, self._register).items():
            self._set(key, best)
        self._set(STUDY_RUN, parent_run(self._paths, "FINISHED", summary, self._times))

    def close(self, status: Status = "KILLED", timeout_s: float | None = None) -> None:
        """Write the final status of runs that are RUNNING, and wait for MLflow; warn if some metrics were not written.

        Args:
            status: of the parent run, unless the study ended.
            timeout_s: how long to wait; None = 20 s, 10 s if this process was asked to stop.
        """
        if timeout_s is None:
            timeout_s = _STOP_TIMEOUT_S if stop_requested() else _CLOSE_TIMEOUT_S
        for key, desired in list(self._desired.items()):
            if desired.status == "RUNNING":
                self._set(key, replace(desired, status=status if key == STUDY_RUN else "KILLED"))
        undelivered = self._outbox.close(timeout_s)
        if undelivered:
            number = len(self._desired) if _ALL_RUNS in undelivered else len(undelivered)
            self._warn(
                f"MLflow at {without_secrets(self._uri)} lacks the newest metrics of {number} "
                f"{'run' if number == 1 else 'runs'}; when it is back, add them with: gitdist sync {self._paths.name} "
                f"--results {self._paths.results}"
            )

    def abandon(self) -> None:
        """Stop writing, because another driver owns the study now; does not wait for MLflow."""
        self._abandoned.set()
        self._outbox.abandon()

    def _set(self, key: RunKey, desired: DesiredRun) -> None:
        self._desired[key] = desired
        self._outbox.enqueue(key)

    def _deliver(self, key: RunKey, steps: Sequence[StepMetrics] | None) -> None:
        """Write ``steps`` of a run, or if None, all that it lacks; called on the outbox's thread."""
        try:
            self._check_owner()
        except StudyError:
            return  # the new owner writes it
        try:
            runs = self._runs or StudyRuns(
                self._paths, self._uri, self._identity, table_view(self._description.spec), self._abandoned
            )
            if key == _ALL_RUNS:
                runs.load()
                runs.end_orphans(tuple(self._desired))  # a copy: the driver's thread adds to it
                self._outbox.enqueue(*self._desired)
            elif steps is None or not runs.append(key, steps):
                runs.upsert(key, self._desired[key], self._description)
            if self._runs is None:
                previous, self._parent_id, self._runs = self._parent_id, runs.parent_id(), runs
                if previous not in (None, self._parent_id):
                    self._outbox.enqueue(_ALL_RUNS)  # the store came back without its content
        except DamagedFileError as error:
            warning = f"MLflow does not have all of study '{self._paths.name}': {error}"
            if warning not in self._warned:
                self._warned.add(warning)
                self._warn(warning)
        except Exception:
            self._runs = None  # the store may come back as another one
            raise

    def _warn_of_failure(self, error: Exception) -> None:
        cause = f"the files for MLflow cannot be written: {error}"
        if not isinstance(error, GitdistError):
            cause = f"MLflow at {without_secrets(self._uri)} cannot be written ({explain(error)})"
        self._warn(f"{cause}; the study continues, and missing data are added when it is back")

    def _warn_of_recovery(self) -> None:
        self._warn(f"MLflow at {without_secrets(self._uri)} is up to date again")
