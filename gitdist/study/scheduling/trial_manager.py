"""The course of a study's trials: which is next, whether it goes on, how it ended. Knows the ledger, but no Ray.

    whoever executes                        TrialManager                                     told
    asks for work         --next_trial-->   left behind first, then the ledger's next
    finds no room         --no_room-->                                                 observer
    has started one       --started-->                                                 observer
    hears from a worker   --heard------->   a row: noted in the ledger, goes on?       ledger, observer
                                            no row: it waits, goes on?                 observer
                                            failed, halt or disk: kept until the end
    sees it end           --ended------->   finished, pruned, failed or interrupted    ledger, observer
    sees its worker die   --died-------->   handed out again; failed after the third,  ledger, observer
                                            or at once where memory ran out

One caller at a time. Nothing raises into the caller: the first trouble that concerns the whole study (a full disk, a
stream or ledger that is gone, a lease that was lost) is kept in ``trouble`` and ends the handing out of trials.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from gitdist.errors import DiskError, GitdistError, StudyError
from gitdist.spec import StudySpec
from gitdist.study.files.events import Observer, Outcome, Row
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.ledger.ledger import Ledger, Link
from gitdist.study.ledger.trial_states import BASELINE_FAILURE, epochs_of

MAX_DEATHS = 3  # of a trial's workers without an epoch between them
ENDINGS = ("failed", "halt", "disk")  # what a trial reports that ends without a result, see ``failure``
LossCause = Literal["worker", "memory", "none"]  # whose a worker's death is; a lost node is nobody's
_OUT_OF_MEMORY = (
    "its worker ran out of memory; lower trial.batch_size, or run fewer trials at once by resources.max_concurrent"
)


@dataclass(frozen=True)
class Assignment:
    """A trial to run: its parameters, the last epoch the ledger knows of it, and ``repeat_of`` or ``replicate_of``."""

    trial: TrialId
    params: Mapping[str, Any]
    noted: int = 0
    links: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Running:
    assignment: Assignment
    started: bool = False
    row: Row | None = None
    said: dict[str, str] = field(default_factory=dict)
    pruned: bool = False


class TrialManager:
    """Decides what the trials of one driver do; see the module's diagram."""

    def __init__(
        self,
        ledger: Ledger,
        observer: Observer,
        spec: StudySpec,
        *,
        with_baseline: bool,
        check_owner: Callable[[bool], None] = lambda thorough: None,
        link: Link | None = None,
    ) -> None:
        """Start the course.

        Args:
            ledger: hands out search trials and is told how they end.
            observer: told of every event.
            spec: the study.
            with_baseline: whether the baseline is still to be trained.
            check_owner: raises StudyError once another driver has taken the study over; where ``thorough``, the ledger
                is asked.
            link: tells which trial a new one repeats, see ``Ledger.next_trial``.
        """
        self._link = link
        self._ledger, self._observer, self._spec = ledger, observer, spec
        self._check_owner = check_owner
        self._baseline_due = with_baseline
        self._ask_ledger = True
        self._running: dict[TrialId, _Running] = {}
        self._reached: dict[TrialId, int] = {}  # the last epoch of each trial, over all its workers
        self._deaths: dict[TrialId, int] = {}  # of its workers since then
        self._stopping = False
        self.trouble: GitdistError | None = None

    @property
    def running(self) -> list[TrialId]:
        """The trials that were handed out and have not ended."""
        return list(self._running)

    @property
    def idle(self) -> bool:
        """Whether no trial has a worker that was started."""
        return not any(running.started for running in self._running.values())

    @property
    def stopping(self) -> bool:
        """Whether trials stop after their present epoch."""
        return self._stopping

    @property
    def over(self) -> bool:
        """Whether nothing will be handed out any more."""
        if self._stopping or self.trouble:
            return True
        return not (self._baseline_due or self._running or self._ask_ledger)

    def stop(self) -> None:
        """Hand out nothing more and stop every trial after its present epoch; the next driver goes on with them."""
        self._stopping = True

    def next_trial(self) -> Assignment | None:
        """Return a trial to run; None where there is none now (``over`` tells whether there ever will be)."""
        with self._noting_trouble():
            return self._next()
        return None

    def no_room(self, waited_s: float) -> None:
        """Hear that for so many seconds no trial that was handed out has found room; told now and then."""
        with self._noting_trouble():
            self._check_owner(False)
            self._observer.no_room(waited_s)

    def started(self, trial: TrialId) -> None:
        """Hear that a trial's worker was started."""
        self._running[trial].started = True
        assignment = self._running[trial].assignment
        with self._noting_trouble():
            self._observer.trial_started(trial, assignment.params)
            if assignment.links:
                self._observer.trial_linked(trial, assignment.links)

    def heard(self, trial: TrialId, report: Mapping[str, Any]) -> bool:
        """Hear a worker's report (``rows``, or one of ``ENDINGS``); return whether the trial goes on."""
        with self._noting_trouble():
            return self._hear(trial, report)
        return False

    def ended(self, trial: TrialId) -> None:
        """Hear that a trial ended by itself, or after ``heard`` said no."""
        with self._noting_trouble():
            self._end(trial)

    def died(self, trial: TrialId, cause: str, fault: LossCause = "worker") -> None:
        """Hear that a trial's worker died; it is tried again, unless it ran out of memory or keeps dying."""
        with self._noting_trouble():
            self._bury(trial, cause, fault)

    def close(self) -> None:
        """Tell of the trials that still run that they were interrupted."""
        for trial in list(self._running):
            with self._noting_trouble():
                self._leave(trial)

    def _next(self) -> Assignment | None:
        self._check_owner(False)
        if self._stopping or self.trouble:
            return None
        assignment = Assignment(BASELINE, {}) if self._baseline_due else self._ask()
        self._baseline_due = False
        if assignment is not None:
            self._running[assignment.trial] = _Running(assignment)
        return assignment

    def _ask(self) -> Assignment | None:
        record = self._ledger.next_trial(self._link) if self._ask_ledger else None
        self._ask_ledger = record is not None  # else there is none until another trial has ended
        if record is None:
            return None
        return Assignment(TrialId("trial", record.number), record.params, max(record.curve, default=0), record.links)

    def _hear(self, trial: TrialId, report: Mapping[str, Any]) -> bool:
        self._check_owner(False)
        running = self._running[trial]
        if "rows" not in report:
            running.said = {key: str(report[key]) for key in ENDINGS if key in report}
            return True
        if not report["rows"]:
            self._observer.trial_waits(trial)
        for row in report["rows"]:
            running.row = row
            self._observer.epoch_ended(trial, row)
            if row["epoch"] > self._reached.get(trial, running.assignment.noted):
                self._reached[trial] = row["epoch"]
                self._deaths.pop(trial, None)
            if trial.number is not None and self._ledger.report(trial.number, row["epoch"], row):
                running.pruned = True
                return False
        return not self._stopping or self._is_whole(running)

    def _end(self, trial: TrialId) -> None:
        self._check_owner(False)
        running = self._running[trial]
        if "disk" in running.said:
            raise DiskError(running.said["disk"])
        if "halt" in running.said:
            raise StudyError(running.said["halt"])
        if "failed" in running.said:
            self._fail(trial, running.said["failed"])
        elif running.pruned:
            self._tell(trial, Outcome("pruned", running.row))
        elif self._is_whole(running):
            self._finish(trial)
        elif self._stopping or self.trouble:
            self._leave(trial)
        else:
            self._bury(trial, "it ended without a word", "worker")

    def _bury(self, trial: TrialId, cause: str, fault: LossCause) -> None:
        self._check_owner(True)  # it may have been superseded by a new owner's worker
        running = self._running[trial]
        epoch = self._reached.get(trial, running.assignment.noted) + 1
        self._deaths[trial] = self._deaths.get(trial, 0) + (fault != "none")
        if fault == "memory":
            self._fail(trial, f"{_OUT_OF_MEMORY} (epoch {epoch})")
        elif self._deaths[trial] >= MAX_DEATHS:
            self._fail(trial, f"its worker was lost {MAX_DEATHS} times in epoch {epoch}, the last time with: {cause}")
        else:
            if trial.number is None:
                self._baseline_due = True
            else:
                self._ledger.requeue(trial.number)
            self._tell(trial, Outcome("interrupted", running.row, f"its worker was lost and is replaced ({cause})"))

    def _finish(self, trial: TrialId) -> None:
        row = self._running[trial].row
        assert row is not None, "a whole trial has a last row"
        if trial.number is None:
            self._tell(trial, Outcome("finished", row))
            return
        self._ledger.finish(trial.number, row)
        record = self._ledger.trials()[trial.number]
        self._tell(trial, Outcome("failed" if record.state == "failed" else "finished", row, record.reason))

    def _fail(self, trial: TrialId, reason: str) -> None:
        if trial.number is None:
            self._ledger.set_attr(BASELINE_FAILURE, reason)
        else:
            self._ledger.fail(trial.number, reason)
        self._tell(trial, Outcome("failed", self._running[trial].row, reason))

    def _leave(self, trial: TrialId) -> None:
        if self._running[trial].started:
            self._tell(trial, Outcome("interrupted", self._running[trial].row))
        else:
            del self._running[trial]

    def _tell(self, trial: TrialId, outcome: Outcome) -> None:
        del self._running[trial]
        self._ask_ledger = True
        self._observer.trial_ended(trial, outcome)

    def _is_whole(self, running: _Running) -> bool:
        epochs = epochs_of(self._spec, running.assignment.params)
        return running.row is not None and running.row["epoch"] >= epochs

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        try:
            yield
        except GitdistError as error:
            self.trouble = self.trouble or error
