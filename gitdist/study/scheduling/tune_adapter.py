"""Ray Tune executes the trials of a study; ``TrialManager`` decides. This module translates between the two.

    TrialManager.next_job       --> LedgerSearcher.suggest          --> Tune starts a worker (an actor, reused)
    TrialManager.on_no_capacity <-- LedgerCallback.on_step_end      <-- every few seconds while no trial has a worker
    TrialManager.on_start       <-- LedgerCallback.on_trial_start   <--
    TrialManager.on_report      <-- LedgerScheduler.on_trial_result <-- tune.report(...) of the worker, once per epoch
    TrialManager.on_complete    <-- LedgerScheduler.on_trial_complete <-- the worker's function returned, or was stopped
    TrialManager.on_worker_lost <-- LedgerScheduler.on_trial_error  <-- the worker's process died

All of it runs in Tune's loop on the driver. For Tune, a rescheduled trial is a new trial; for the ledger it is
the same. Tune's own state is in a temporary directory and is never restored.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import OutOfMemoryError
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.util import placement_group_table

from gitdist.errors import first_line
from gitdist.spec import ResourcesSpec
from gitdist.stream.reservation import WaitReporter
from gitdist.study.files.layout import TrialId
from gitdist.study.scheduling.trial_manager import ENDINGS, LossCause, TrialManager
from gitdist.study.worker.job import TrialJob

_DEATH_REASON = re.compile(r"(?:is dead|died) because (.*?)(?:\. Some common|\.? Node Id|$)", re.MULTILINE)
_NODE_LOST = ("node has died", "is unavailable")  # the latter until Ray is certain
_OOM_NODE = re.compile(r"\(IP: ([^,)]+)")  # these two match the report of Ray's memory monitor
_OOM_PROCESS = re.compile(r"(?s)Selected to kill: .*?pid=(\d+), actual memory used=([\d.]+)GB")

_Process = tuple[str, int]  # address of its node, and pid


def run_trials(
    train: Callable[[TrialJob], None], manager: TrialManager, resources: ResourcesSpec, max_concurrent: int
) -> None:
    """Run ``train`` in workers for the jobs of ``manager`` until it is done.

    ``train`` reports ``{"rows": [...]}`` after an epoch, or one of ``ENDINGS`` if it ends without a result. If the
    cluster adds nodes, capacity is requested for all trials at once, else for one after another.
    """
    try:
        while not manager.done:
            workers: dict[TrialId, _Process] = {}
            try:
                _fit(train, manager, resources, max_concurrent, workers)
            except RuntimeError as error:
                if not isinstance(error.__cause__, OutOfMemoryError):
                    raise
                _attribute_oom(manager, error.__cause__, workers)  # Tune does not handle this error, and stops
            if not manager.done:  # Tune stopped on its own, for example after SIGUSR1
                for trial in manager.running:
                    manager.on_worker_lost(trial, "Tune has stopped", "node")
    finally:
        manager.close()


def _fit(
    train: Callable[[TrialJob], None],
    manager: TrialManager,
    resources: ResourcesSpec,
    max_concurrent: int,
    workers: dict[TrialId, _Process],
) -> None:
    share = resources.trial

    def trainable(config: dict[str, Any]) -> None:
        train(config["job"])

    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max_concurrent if resources.autoscaling else 1)
    with tempfile.TemporaryDirectory(prefix="gitdist-tune-") as directory:
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": share.cpu, "gpu": share.num_gpus}),
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(manager, max_concurrent),
                scheduler=LedgerScheduler(manager, workers),
                num_samples=sys.maxsize,  # the manager decides when it is done
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=directory,
                verbose=0,
                callbacks=[LedgerCallback(manager)],
                stop=LedgerStopper(manager),
            ),
        ).fit()


def _attribute_oom(manager: TrialManager, error: OutOfMemoryError, workers: Mapping[TrialId, _Process]) -> None:
    """Fail the trial of the largest process that the memory monitor killed; reschedule the others."""
    report = str(error)
    killed = sorted((float(gigabytes), int(pid)) for pid, gigabytes in _OOM_PROCESS.findall(report))
    largest = {(node, pid) for node in _OOM_NODE.findall(report) for _, pid in killed[-1:]}
    known = any(workers.get(trial) in largest for trial in manager.running)
    for trial in manager.running:
        other: LossCause = "node" if known else "worker"
        manager.on_worker_lost(trial, first_line(error), "memory" if workers.get(trial) in largest else other)


class _Unsaved:
    """Excludes the manager from the state that Tune writes to disk, which is never restored."""

    def __init__(self, manager: TrialManager) -> None:
        super().__init__()
        self._manager = manager

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerSearcher(_Unsaved, Searcher):
    """Suggests the manager's next jobs, at most ``max_concurrent`` at once."""

    def __init__(self, manager: TrialManager, max_concurrent: int) -> None:
        """Suggest jobs while fewer than ``max_concurrent`` trials run."""
        super().__init__(manager)
        self._max_concurrent = max_concurrent

    def suggest(self, trial_id: str) -> Any:
        """Return the config of the next trial, None if there is none now, or FINISHED."""
        if len(self._manager.running) >= self._max_concurrent:
            return None
        job = self._manager.next_job()
        if job is None:
            return str(Searcher.FINISHED) if self._manager.done else None
        return {"job": job}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the scheduler notifies the manager."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the only record."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the only record."""


class LedgerScheduler(_Unsaved, FIFOScheduler):
    """Passes reports and ends of workers to the manager; stops the trials that the manager does not let continue."""

    def __init__(self, manager: TrialManager, workers: dict[TrialId, _Process]) -> None:
        """Record each trial's worker process in ``workers`` at its first report."""
        super().__init__(manager)
        self._workers = workers

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """Pass on a report."""
        if result.get("done"):  # the last report again, when the worker's function has returned
            return str(TrialScheduler.CONTINUE)
        self._workers[_trial_id(trial)] = (result["node_ip"], result["pid"])
        report = {key: result[key] for key in ("rows", *ENDINGS) if key in result}
        continues = self._manager.on_report(_trial_id(trial), report)
        return str(TrialScheduler.CONTINUE if continues else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> None:
        """Pass on that a trial returned or was stopped."""
        self._workers.pop(_trial_id(trial), None)
        self._manager.on_complete(_trial_id(trial))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Pass on that a worker died."""
        message = Path(trial.error_file).read_text() if trial.error_file else ""
        death = _DEATH_REASON.search(message)
        node_lost = any(sign in (death[1] if death else message) for sign in _NODE_LOST)
        reason = death[1] if death else "its node does not answer" if node_lost else "unknown reason"
        self._workers.pop(_trial_id(trial), None)
        self._manager.on_worker_lost(_trial_id(trial), reason, "node" if node_lost else "worker")


class LedgerCallback(_Unsaved, tune.Callback):
    """Passes on starts of workers, missing capacity, and failures that Tune does not report to schedulers."""

    def __init__(self, manager: TrialManager) -> None:
        """Start with no wait in progress."""
        super().__init__(manager)
        self._reporter: WaitReporter | None = None  # while no trial has a worker

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Pass on the start."""
        self._manager.on_start(_trial_id(trial))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Report missing capacity, and trials whose reused worker could not be reset."""
        if self._manager.running and self._manager.idle:
            self._reporter = self._reporter or WaitReporter(self._report_wait)
            self._reporter.poll()
        else:
            self._reporter = None
        newest = {_trial_id(trial): trial for trial in trials}
        for trial_id in self._manager.running:
            if trial_id in newest and newest[trial_id].status == Trial.ERROR:
                self._manager.on_worker_lost(trial_id, "its worker could not be reused")

    def _report_wait(self, waited_s: float) -> None:
        if any(group["state"] == "PENDING" for group in placement_group_table().values()):  # else a worker is starting
            self._manager.on_no_capacity(waited_s)


class LedgerStopper(_Unsaved, tune.Stopper):
    """Stops Tune after a study-wide error, or when the manager is stopping and no worker is left."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Leave single trials to the scheduler."""
        return False

    def stop_all(self) -> bool:
        """Return whether Tune must stop."""
        return self._manager.error is not None or (self._manager.stopping and self._manager.idle)


def _trial_id(trial: Trial) -> TrialId:
    job: TrialJob = trial.config["job"]
    return job.trial
