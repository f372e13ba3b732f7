"""The search phase of a study: trains all trials, then retrains the lost epochs of finished ones."""

import threading
from contextlib import suppress
from typing import Any

import ray
from ray import tune

from gitdist.disk import disk_errors
from gitdist.study.cluster.signals import interruptible
from gitdist.study.files.events import Outcome
from gitdist.study.files.fencing import end_attempt
from gitdist.study.files.layout import TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.ledger.repeats import Repeats
from gitdist.study.resources.stream import StreamResources
from gitdist.study.running_study import RunningStudy
from gitdist.study.scheduling.tasks import run_tasks
from gitdist.study.scheduling.trial_manager import TrialManager
from gitdist.study.scheduling.tune_adapter import run_trials
from gitdist.study.worker.job import TrialContext, TrialJob
from gitdist.study.worker.trial_task import restore_epochs, run_trial
from gitdist.trial.epoch_row import EpochRow


class _Recorder:
    """The driver's records of its trials; see ``TrialRecorder``."""

    def __init__(self, running: RunningStudy, resources: StreamResources) -> None:
        self._paths, self._times, self._lease = running.study.paths, running.times, running.lease
        self._resources = resources

    def record_start(self, trial: TrialId) -> None:
        directory = self._paths.trial(trial)
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        self._times.started(str(trial))

    def record_epoch(self, trial: TrialId, row: EpochRow) -> None:
        if self._paths.results.uri is not None:
            rows = read_rows(self._paths.rows(trial))
            if not rows or rows[-1].epoch < row.epoch:  # rows that were reported together are pulled at once
                self._paths.pull(trial)
        self._resources.pin_prefix(trial)

    def record_end(self, trial: TrialId, outcome: Outcome) -> None:
        self._paths.pull(trial)  # a failed trial may have an error.txt
        self._times.ended(str(trial))
        if outcome.state == "interrupted":
            end_attempt(self._paths.trial(trial), self._lease.epoch, self._paths.results)
        self._resources.record_usage()


def search(running: RunningStudy, context: TrialContext, resources: StreamResources, max_concurrent: int) -> None:
    """Train the baseline and all trials that have not ended."""
    study, ledger = running.study, running.study.ledger
    with_baseline = not study.is_baseline_ended()
    if not (with_baseline or ledger.num_open()):
        return
    manager = TrialManager(
        ledger,
        running.spec,
        with_baseline=with_baseline,
        recorder=_Recorder(running, resources),
        observers=running.observers,
        check_owner=running.lease.check,
        link=Repeats(running.spec, running.dataset.class_sizes).link,
    )

    def train(job: TrialJob) -> None:
        run_trial(context, job, tune.report)

    def report_stop() -> None:
        with suppress(OSError):  # the signal may have ended the program that reads the output
            running.display.log("stopping after the current epochs; press Ctrl-C again to stop now")

    def stop() -> None:
        manager.stop()
        threading.Thread(target=report_stop).start()  # a thread, since the signal may have interrupted a print

    with interruptible(stop):
        run_trials(train, manager, running.spec.resources, max_concurrent)
    if manager.stopping:
        raise KeyboardInterrupt
    if manager.error:
        raise manager.error


def restore_lost_epochs(running: RunningStudy, context: TrialContext, max_concurrent: int) -> None:
    """Retrain the lost epochs of finished trials; evaluation and summary need all epochs."""
    study, share = running.study, running.spec.resources.trial
    restore = ray.remote(num_cpus=share.cpu, num_gpus=share.num_gpus)(restore_epochs)
    damaged: dict[TrialId, TrialJob] = {}
    for record in study.ledger.trials():
        if lost := study.num_lost_epochs(record):
            running.display.log(f"trial {record.number} has lost {lost} of its rows; retraining these epochs")
            trial = TrialId("trial", record.number)
            damaged[trial] = TrialJob.create(running.spec, trial, record.params, links=record.links)

    def submit(trial: TrialId) -> Any:
        return restore.remote(context, damaged[trial])

    task = "train the lost epochs of trial {}"
    for trial in run_tasks(submit, damaged, max_concurrent, task, running.lease.check):
        study.paths.pull(trial)
        running.tracker.trial_ended(trial, Outcome("finished"))
