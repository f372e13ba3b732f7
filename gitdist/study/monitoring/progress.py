"""The facts that a study's display shows: how each trial is doing, the best so far, the time left, the current phase.

driver's events --> StudyProgress --snapshot--> Snapshot --> ``picture`` (terminal), ``LogDisplay`` (log)
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from gitdist.errors import GitdistError, TrialFailedError
from gitdist.spec import SearchSpec
from gitdist.study.files.attribution import trainer_name
from gitdist.study.files.events import Observer, Outcome
from gitdist.study.files.layout import TrialId
from gitdist.study.ledger.records import TrialRecord, pareto_of
from gitdist.study.study import Study
from gitdist.study.trial_status import TrialStatus, read_trial_statuses, status_metrics, study_time_left, worked_hours
from gitdist.trial.epoch_row import EpochRow
from gitdist.trial.stages import Prefix, shared_prefix

WAITS = "waits for its first stage, which another trial trains"  # the reason in such a trial's status


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A long step of a study.

    Attributes:
        name: what is done.
        done: units done so far.
        total: units in all.
        unit: their plural.
        rate: units of ``rate_unit`` per second; None if not known yet.
        rate_unit: its plural.
        left_s: seconds until the end; None if not known yet.
        detail: what else is known.
    """

    name: str
    done: int
    total: int
    unit: str
    rate: float | None = None
    rate_unit: str
    left_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What is known of a running study at one moment.

    Attributes:
        search: the search part of its spec.
        trials: those that were started, also by earlier drivers.
        total: search trials in all.
        best: the best finished point, or the Pareto front.
        left_s: seconds until all trials have ended; None before the first epoch.
        phase: the long step that is under way, if any.
        stream: the stream's statistics as text.
    """

    search: SearchSpec
    trials: Sequence[TrialStatus]
    total: int
    best: Sequence[TrialRecord] = ()
    left_s: float | None = None
    phase: Phase | None = None
    stream: str = ""

    def is_feasible(self, trial: TrialStatus) -> bool:
        """Return whether a trial's last metrics meet the constraints of the search."""
        metrics = trial.metrics
        return all(
            each.violation(metrics[each.metric]) <= 0 for each in self.search.constraints if each.metric in metrics
        )


class StudyProgress(Observer):
    """Keeps the facts of a study from the events of its trials; any thread may call ``snapshot``."""

    def __init__(self, study: Study) -> None:
        """Start from what earlier drivers have left in ledger and files."""
        self._study = study
        self._trials = read_trial_statuses(study, None)
        self._seconds: dict[TrialId, dict[int, float]] = {}  # of this driver's rows, by epoch
        self._prefixes: dict[TrialId, Prefix | None] = {}  # of the trials of this driver
        self._names: dict[TrialId, str] = {}
        self._hours, self._started_at = worked_hours(study), time.monotonic()
        self._end: float | None = None  # estimated, on the monotonic clock
        self._read_ledger()
        self._estimate()

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Set the trial running; a resumed one keeps its epochs."""
        known = self._trials.get(trial) or self._new(trial, params)
        self._names[trial] = trainer_name(self._study.paths, trial)
        prefix = self._shared_prefix(trial, params)
        self._set(trial, replace(known, state="running", reason=None))
        self._prefixes = {**self._prefixes, trial: prefix}

    def trial_waits(self, trial: TrialId) -> None:
        """Record that the trial waits for its prefix."""
        self._set(trial, replace(self._trials[trial], reason=WAITS))

    def epoch_ended(self, trial: TrialId, row: EpochRow) -> None:
        """Record the epoch's metrics and seconds; after an interruption epochs are reported again."""
        known, seconds = self._trials[trial], self._seconds.setdefault(trial, {})
        seconds[row.epoch] = row.train_s + row.evaluating_s
        own = self._names[trial]
        prefix = self._prefixes[trial]
        is_shared = prefix is not None and row.epoch <= prefix.epochs and (row.trained_by or own) != own
        metrics = {name: row.metrics[name] for name in status_metrics(self._study.spec.search) if name in row.metrics}
        status = replace(
            known,
            epoch=row.epoch,
            metrics=metrics or known.metrics,
            reason=None,
            seconds=sum(seconds.values()) / len(seconds),
            shared=max(known.shared, row.epoch) if is_shared else known.shared,
        )
        self._set(trial, status)

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Record the trial's end, and read from the ledger which is the best now."""
        with suppress(GitdistError):  # the driver's own next step meets and reports the error
            self._read_ledger()
        known = self._trials.get(trial) or self._new(trial, {})  # some trials end before they start
        self._set(trial, replace(known, state=outcome.state, reason=outcome.reason))

    def status(self, trial: TrialId) -> TrialStatus:
        """Return the status of a trial."""
        return self._trials[trial]

    def snapshot(self, phase: Phase | None = None, stream: str = "") -> Snapshot:
        """Return the facts now; ``phase`` is one that is not that of a trial."""
        prefixes, trials, end = self._prefixes, self._trials, self._end  # in this order: each prefix has a trial
        return Snapshot(
            search=self._study.spec.search,
            trials=tuple(trials.values()),
            total=self._total,
            best=self._best,
            left_s=None if end is None else max(0.0, end - time.monotonic()),
            phase=phase or _prefix_phase(prefixes, trials),
            stream=stream,
        )

    def _new(self, trial: TrialId, params: Mapping[str, Any]) -> TrialStatus:
        epochs = self._study.num_epochs(params)
        return TrialStatus(trial=str(trial), state="running", epoch=0, epochs=epochs, params=dict(params), metrics={})

    def _set(self, trial: TrialId, status: TrialStatus) -> None:
        self._trials = {**self._trials, trial: status}  # a new mapping, since other threads read the old one
        self._estimate()

    def _read_ledger(self) -> None:
        ledger = self._study.ledger
        self._total = ledger.total
        self._best = pareto_of(ledger.points(), self._study.spec.search.directions)

    def _estimate(self) -> None:
        trials = list(self._trials.values())
        num_started = sum(trial.number is not None for trial in self._trials)
        now = time.monotonic()
        hours = self._hours + (now - self._started_at) / 3600
        left_s = study_time_left(self._study.spec, trials, self._total - num_started, hours)
        self._end = None if left_s is None else now + left_s

    def _shared_prefix(self, trial: TrialId, params: Mapping[str, Any]) -> Prefix | None:
        """Return the prefix that the trial has in common with others, if any."""
        spec = self._study.spec
        if not spec.sharing.prefix:
            return None
        with suppress(TrialFailedError):  # parameters that break a rule: the trial fails at once
            return shared_prefix(spec.trial if trial.number is None else spec.trial_of(params))
        return None


def _prefix_phase(prefixes: Mapping[TrialId, Prefix | None], trials: Mapping[TrialId, TrialStatus]) -> Phase | None:
    """Return the training of the prefix that is furthest from its end; that of a prefix is its furthest trial's."""
    furthest: dict[str, TrialId] = {}
    for trial, prefix in prefixes.items():
        if prefix is not None:
            key = prefix.spec.model_dump_json()
            furthest[key] = max(trial, furthest.get(key, trial), key=lambda each: trials[each].epoch)
    left = {
        trial: prefix.epochs - trials[trial].epoch
        for trial in furthest.values()
        if trials[trial].state == "running" and (prefix := prefixes[trial])
    }
    if not left:
        return None
    trial = max(left, key=lambda each: left[each])
    if left[trial] <= 0:
        return None
    seconds, done = trials[trial].seconds, trials[trial].epoch
    return Phase(
        name="training the epochs that trials share",
        done=done,
        total=done + left[trial],
        unit="epochs",
        rate=1 / seconds if seconds else None,
        rate_unit="epochs",
        left_s=seconds * left[trial] if seconds else None,
    )
