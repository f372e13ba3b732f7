"""Ray Tune executes the course of a study's trials; everything here only translates.

    TrialManager.next_trial --> LedgerSearcher.suggest       --> Tune starts a worker (an actor, reused between trials)
    TrialManager.no_room    <-- LedgerCallback.on_step_end   <-- every few seconds while no trial has free capacity
    TrialManager.started    <-- LedgerCallback.on_trial_start <--
    TrialManager.heard      <-- LedgerScheduler.on_trial_result   <-- tune.report(...) of the worker, once an epoch
    TrialManager.ended      <-- LedgerScheduler.on_trial_complete <-- the worker's function returned, or was stopped
    TrialManager.died       <-- LedgerScheduler.on_trial_error    <-- the worker's process died

All of it runs in Tune's one loop on the driver. A trial that is tried again is a new trial for Tune and the same one
for the ledger. Nothing of Tune's own state outlives the run: it lies in a directory that is removed.
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

_SENTENCE = re.compile(r"(?:is dead|died) because (.*?)(?:\. Some common|\.? Node Id|$)", re.MULTILINE)
_NODE_LOST = ("node has died", "is unavailable")  # the latter until Ray is sure of it
_NODE = re.compile(r"\(IP: ([^,)]+)")  # in the account of Ray's memory monitor, as the next
_VICTIM = re.compile(r"(?s)Selected to kill: .*?pid=(\d+), actual memory used=([\d.]+)GB")  # beside others it names

_Process = tuple[str, int]  # address of its node, and pid


def run_trials(
    train: Callable[[dict[str, Any]], None], course: TrialManager, resources: ResourcesSpec, max_concurrent: int
) -> None:
    """Run the trials of ``course`` until it is over.

    Args:
        train: the trainable; its config has ``role``, ``number``, ``params``, ``noted`` and ``links``; it reports
            ``{"rows": [...]}`` after an epoch, or one of ``ENDINGS`` where it ends without a result.
        course: decides.
        resources: says what a trial takes, and whether the cluster adds nodes: then it is asked for room for all
            trials at once, else for one after the other.
        max_concurrent: trials at once.
    """
    try:
        while not course.over:
            workers: dict[TrialId, _Process] = {}
            try:
                _fit(train, course, resources, max_concurrent, workers)
            except RuntimeError as error:
                if not isinstance(error.__cause__, OutOfMemoryError):
                    raise
                _attribute_oom(course, error.__cause__, workers)  # Tune knows no such end of a worker, and gives up
            if not course.over:  # Tune ended by itself: at a SIGUSR1, say
                for trial in course.running:
                    course.died(trial, "Tune has stopped", "none")
    finally:
        course.close()


def _fit(
    train: Callable[[dict[str, Any]], None],
    course: TrialManager,
    resources: ResourcesSpec,
    max_concurrent: int,
    workers: dict[TrialId, _Process],
) -> None:
    share = resources.trial
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(max_concurrent if resources.autoscaling else 1)
    with tempfile.TemporaryDirectory(prefix="gitdist-tune-") as directory:
        tune.Tuner(
            tune.with_resources(train, {"cpu": share.cpu, "gpu": share.gpu}),
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(course, max_concurrent),
                scheduler=LedgerScheduler(course, workers),
                num_samples=sys.maxsize,  # the course says when it is over
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=directory,
                verbose=0,
                callbacks=[LedgerCallback(course)],
                stop=LedgerStopper(course),
            ),
        ).fit()


def _attribute_oom(course: TrialManager, error: OutOfMemoryError, workers: Mapping[TrialId, _Process]) -> None:
    """Tell of the trial whose worker took most of those that the memory monitor killed; the others are not to blame."""
    told = str(error)
    killed = sorted((float(gigabytes), int(pid)) for pid, gigabytes in _VICTIM.findall(told))
    greediest = {(node, pid) for node in _NODE.findall(told) for _, pid in killed[-1:]}
    known = any(workers.get(trial) in greediest for trial in course.running)
    for trial in course.running:
        unharmed: LossCause = "none" if known else "worker"
        course.died(trial, first_line(error), "memory" if workers.get(trial) in greediest else unharmed)


class _Unsaved:
    """Tune writes its tuner to disk for a restore that never happens here; this part of it is left out."""

    def __init__(self, course: TrialManager) -> None:
        super().__init__()
        self._course = course

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerSearcher(_Unsaved, Searcher):
    """Hands out what the course hands out, so many at once."""

    def __init__(self, course: TrialManager, max_concurrent: int) -> None:
        """Hand out trials of ``course`` while fewer than ``max_concurrent`` run."""
        super().__init__(course)
        self._max_concurrent = max_concurrent

    def suggest(self, trial_id: str) -> Any:
        """Return the config of the next trial, None where there is none yet, or FINISHED."""
        if len(self._course.running) >= self._max_concurrent:
            return None
        assignment = self._course.next_trial()
        if assignment is None:
            return str(Searcher.FINISHED) if self._course.over else None
        trial = assignment.trial
        return {
            "role": trial.role,
            "number": trial.number,
            "params": dict(assignment.params),
            "noted": assignment.noted,
            "links": dict(assignment.links),
        }

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the scheduler has told the course."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the only record."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the ledger is the only record."""


class LedgerScheduler(_Unsaved, FIFOScheduler):
    """Passes on what workers report and how they end; stops what the course does not let go on."""

    def __init__(self, course: TrialManager, workers: dict[TrialId, _Process]) -> None:
        """Tell ``course``, and keep in ``workers`` the process of each trial's worker since its first report."""
        super().__init__(course)
        self._workers = workers

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> str:
        """Tell of a report."""
        if result.get("done"):  # the last report once more, when the worker's function has returned
            return str(TrialScheduler.CONTINUE)
        self._workers[_identify(trial)] = (result["node_ip"], result["pid"])
        report = {key: result[key] for key in ("rows", *ENDINGS) if key in result}
        goes_on = self._course.heard(_identify(trial), report)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Mapping[str, Any]) -> None:
        """Tell of a trial that ended by itself or was stopped."""
        self._workers.pop(_identify(trial), None)
        self._course.ended(_identify(trial))

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Tell of a worker that died."""
        told = Path(trial.error_file).read_text() if trial.error_file else ""
        sentence = _SENTENCE.search(told)
        node_lost = any(sign in (sentence[1] if sentence else told) for sign in _NODE_LOST)
        cause = sentence[1] if sentence else "its node does not answer" if node_lost else "no reason known"
        self._workers.pop(_identify(trial), None)
        self._course.died(_identify(trial), cause, "none" if node_lost else "worker")


class LedgerCallback(_Unsaved, tune.Callback):
    """Tells the course of a worker's start, of a lack of room, and of ends that Tune tells no scheduler of."""

    def __init__(self, course: TrialManager) -> None:
        """Tell ``course``."""
        super().__init__(course)
        self._reporter: WaitReporter | None = None  # while no trial has a worker

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Tell of the start."""
        self._course.started(_identify(trial))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Tell of a lack of room, and of trials whose worker could not be made ready for them, after another trial."""
        if self._course.running and self._course.idle:
            self._reporter = self._reporter or WaitReporter(self._no_room)
            self._reporter.poll()
        else:
            self._reporter = None
        newest = {_identify(trial): trial for trial in trials}
        for identity in self._course.running:
            if identity in newest and newest[identity].status == Trial.ERROR:
                self._course.died(identity, "its worker could not be used again")

    def _no_room(self, waited_s: float) -> None:
        if any(group["state"] == "PENDING" for group in placement_group_table().values()):  # else a worker comes up
            self._course.no_room(waited_s)


class LedgerStopper(_Unsaved, tune.Stopper):
    """Stops everything where the course met a trouble of the whole study, or stops and has nothing to wait for."""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Leave single trials to the scheduler."""
        return False

    def stop_all(self) -> bool:
        """Tell whether it is time."""
        course = self._course
        return course.trouble is not None or (course.stopping and course.idle)


def _identify(trial: Trial) -> TrialId:
    return TrialId(trial.config["role"], trial.config["number"])
