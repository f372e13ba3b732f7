"""The lease: at any time one driver owns a study, on whatever host it runs.

    claim     write a new term n, then look at every term below n that has not ended
                one of them holds the study and lives  -> n ends FAIL: refused
                one of them lives and is undecided     -> look again shortly
                all are dead                           -> they end FAIL, n is confirmed: the holder
    beat      a thread renews the term's time; where the term has ended, another driver took the study: lost
    release   n ends COMPLETE, its value the seconds it lasted

The storage numbers terms in the order in which they become visible, so a claimer sees every term below its own, and of
drivers that claim at once only the lowest can find nobody alive. A claimer that is killed leaves a term of a dead
process, which stops nobody. A process is dead at once where it can be seen to be gone, which takes the same host; else
when its last beat is older than its lease. So the clocks of the hosts must agree to well within a lease.
"""

import threading
import time
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Self

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from gitdist.errors import StudyLockedError
from gitdist.study.ledger.process import ProcessIdentity
from gitdist.study.ledger.storage import storage_errors
from gitdist.study.ledger.terms import (
    BEAT,
    HOLDS,
    TAKER,
    Owner,
    add_term,
    find_terms,
    obtain_terms,
    owner_of,
    running_below,
    stamp,
)

__all__ = ["Lease", "Owner", "owners"]

_PATIENCE_S = 5.0  # for a lower claimer to decide
_POLL_S = 0.02
_OVERDUE = 2  # beats after which the storage is asked before this driver is taken for the owner
_STOP_S = 5.0  # for a beat that is under way at the release


class Lease:
    """A driver's hold on a study; a context manager that releases it. Made by ``claim``."""

    def __init__(self, storage: BaseStorage, study_name: str, term: FrozenTrial, beat_s: float, lease_s: float) -> None:
        """Stand for a term that ``claim`` has written."""
        self._storage, self._name, self._id = storage, study_name, term._trial_id
        self._beat_s, self._lease_s = beat_s, lease_s
        self._claimed = self._last_beat = time.time()
        self._ended: FrozenTrial | None = None
        self._stop, self._beating = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._keep_beating, name="lease", daemon=True)
        self.term = term.number

    @classmethod
    def claim(
        cls,
        storage: BaseStorage,
        study_name: str,
        *,
        take_over: bool = False,
        beat_s: float = 10.0,
        lease_s: float = 60.0,
    ) -> Self:
        """Make this process the owner of a study.

        Args:
            storage: the ledger's; the heartbeat's thread uses it as well.
            study_name: the study.
            take_over: end a live owner's term.
            beat_s: seconds between two signs of life.
            lease_s: seconds without one after which others take this driver for dead.

        Raises:
            StudyLockedError: another driver owns the study.
            StudyError: the storage cannot be used.
        """
        with storage_errors(f"of study '{study_name}'"):
            terms = obtain_terms(storage, study_name)
            lease = cls(storage, study_name, add_term(storage, terms, beat_s, lease_s), beat_s, lease_s)
            try:
                lease._win(terms, take_over)
            except BaseException:
                lease._tell(TrialState.FAIL)
                raise
        lease._thread.start()
        return lease

    @property
    def lost(self) -> bool:
        """Whether another driver has taken the study; a storage that cannot be reached is no loss."""
        return self._ended is not None

    def check(self, thorough: bool = False) -> None:
        """Return if this driver still owns the study, as far as is known.

        Args:
            thorough: ask the storage now, not with the next beat.

        Raises:
            StudyLockedError: another driver has taken the study.
        """
        overdue = time.time() - self._last_beat > _OVERDUE * self._beat_s  # this process was stopped, say
        if not self.lost and (thorough or overdue):
            self._beat()
        if self._ended is not None:
            taker = self._ended.user_attrs.get(TAKER)
            by = f"by pid {taker['pid']} on {taker['host']} at {_clock(taker['at'])}" if taker else "by another program"
            raise StudyLockedError(
                f"study '{self._name}' was taken over {by}; this driver leaves it, and it goes on there"
            )

    def release(self) -> None:
        """End the term. Doing so twice, or after a loss, changes nothing."""
        self._stop.set()
        self._thread.join(_STOP_S)
        if not self.lost:
            self._tell(TrialState.COMPLETE, time.time() - self._claimed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _win(self, terms: int, take_over: bool) -> None:
        """Return as the holder, all lower terms ended; raise StudyError where one of them lives."""
        patience = time.monotonic() + _PATIENCE_S
        while True:
            lower = running_below(self._storage, terms, self.term)
            in_the_way = [] if take_over else [term for term in lower if owner_of(term).state != "dead"]
            if not in_the_way:
                break
            holders = [term for term in in_the_way if HOLDS in term.user_attrs]
            if holders or time.monotonic() > patience:
                raise StudyLockedError(_refusal(self._name, owner_of((holders or in_the_way)[0])))
            time.sleep(_POLL_S)
        for term in lower:
            self._take_from(term)
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(self._id, HOLDS, stamp())
        # A higher claimer may have ended this term meanwhile: what still runs after it was confirmed holds.
        self._look()
        self.check()

    def _take_from(self, term: FrozenTrial) -> None:
        own = ProcessIdentity.own()
        taker = {"term": self.term, "host": own.host, "pid": own.pid, "at": stamp()}
        with suppress(UpdateFinishedTrialError):  # it ended by itself meanwhile
            self._storage.set_trial_user_attr(term._trial_id, TAKER, taker)
            self._storage.set_trial_state_values(term._trial_id, TrialState.FAIL)

    def _look(self) -> None:
        term = self._storage.get_trial(self._id)
        if term.state.is_finished():
            self._ended = term

    def _beat(self) -> None:
        with self._beating, suppress(Exception):  # whatever a storage out of reach raises: the next beat tries again
            self._look()
            if not self.lost:
                self._storage.set_trial_user_attr(self._id, BEAT, stamp())
                self._last_beat = time.time()

    def _keep_beating(self) -> None:
        try:
            while not self.lost and not self._stop.wait(self._beat_s):
                self._beat()
        finally:
            self._storage.remove_session()

    def _tell(self, state: TrialState, *values: float) -> None:
        with suppress(Exception):  # a term that cannot be ended ends with its process
            self._storage.set_trial_state_values(self._id, state, values or None)


def owners(storage: BaseStorage, study_name: str) -> list[Owner]:
    """Return the drivers that own, owned or claimed a study, by term; writes nothing.

    Raises:
        StudyError: the storage cannot be used.
    """
    with storage_errors(f"of study '{study_name}'"):
        terms = find_terms(storage, study_name)
        return [] if terms is None else [owner_of(term) for term in storage.get_all_trials(terms, deepcopy=False)]


def _refusal(study_name: str, owner: Owner) -> str:
    return (
        f"study '{study_name}' is being run by pid {owner.pid} on {owner.host} since {_clock(owner.since)}, last sign "
        f"of life {_clock(owner.last_beat)}; wait for it (without another sign the study is free at "
        f"{_clock(owner.free_at)}), or take the study from it with --take-over"
    )


def _clock(moment: datetime | str) -> str:
    moment = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
