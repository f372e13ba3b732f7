"""The lease: at most one driver, over all hosts, owns a study at any time.

    claim      write lease record n, then check every record below n that has not ended
                 one is confirmed, its driver may be alive -> end record n with FAIL: refused
                 one is undecided, its driver may be alive -> check again shortly
                 the drivers of all are dead               -> end them with FAIL, confirm record n: owner
    heartbeat  a thread updates the record's time; if the record has ended, another driver has taken over: lost
    release    end record n with COMPLETE; its value is the lease's duration in seconds

Lease records are trials of the Optuna study ``NAME.owners``; a record's number is the lease epoch. The storage numbers
records in the order in which they become visible: a claiming driver sees every record below its own, and of drivers
that claim at the same time only the one with the lowest record can find no live owner. A record enters the storage in
one write, so a killed claimer leaves a complete record of a dead driver, which blocks no other.

A driver is dead if its process has exited, which only its own host can detect, or if its last heartbeat is older than
its lease. So the clocks of the hosts must differ by much less than a lease.
"""

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

import optuna
import psutil
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.errors import StudyLockedError
from gitdist.study.ledger.storage import storage_errors

OWNER = "gitdist.owner"  # attributes of a lease record: process, start time, heartbeat interval and lease duration
HEARTBEAT = "gitdist.beat"  # time of the last heartbeat
CONFIRMED = "gitdist.holds"  # when the claim succeeded
TAKEN_OVER_BY = "gitdist.taken_over"  # the driver that ended the lease, and when

_CLAIM_TIMEOUT_S = 5.0  # for a claimer with a lower record to decide
_POLL_S = 0.02
_RELEASE_TIMEOUT_S = 5.0  # for a heartbeat in progress at the release
_OVERDUE = 2  # intervals without a heartbeat after which ``check`` asks the storage
_UNKNOWN = 3  # intervals without a heartbeat after which other drivers cannot know whether the owner is alive
_CLOCK_TOLERANCE_S = 1.0  # the system's boot time moves by a second while its clock is being set
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")

OwnerState = Literal["live", "unknown", "dead", "ended"]


@dataclass(frozen=True)
class Owner:
    """A driver that owns, owned or claimed a study; times are UTC.

    ``live``: its heartbeats arrive. ``unknown``: they have stopped, but its lease has not expired. ``dead``: its
    process has exited or its lease has expired, so the next claim succeeds. ``ended``: released, refused or taken over.
    """

    lease_epoch: int
    host: str
    pid: int
    since: datetime
    last_heartbeat: datetime
    state: OwnerState
    lease_s: float

    @property
    def expires_at(self) -> datetime:
        """When the lease expires without another heartbeat."""
        return self.last_heartbeat + timedelta(seconds=self.lease_s)

    def as_json(self) -> dict[str, Any]:
        """Return JSON values under the names of ``gitdist status --json``, which must not change."""
        return {
            "term": self.lease_epoch,
            "host": self.host,
            "pid": self.pid,
            "since": str(self.since),
            "last_beat": str(self.last_heartbeat),
            "state": self.state,
            "lease_s": self.lease_s,
        }


class Lease:
    """A driver's ownership of a study, returned by ``claim``; a context manager that releases it."""

    def __init__(
        self, storage: BaseStorage, study_name: str, record: FrozenTrial, heartbeat_s: float, lease_s: float
    ) -> None:
        """Wrap a lease record that ``claim`` has written."""
        self._storage, self._name, self._id = storage, study_name, record._trial_id
        self._heartbeat_s, self._lease_s = heartbeat_s, lease_s
        self._claimed_at = self._last_heartbeat = time.time()
        self._ended: FrozenTrial | None = None
        self._stop, self._sending = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._send_heartbeats, name="lease", daemon=True)
        self.epoch = record.number

    @classmethod
    def claim(
        cls,
        storage: BaseStorage,
        study_name: str,
        *,
        take_over: bool = False,
        heartbeat_s: float = 10.0,
        lease_s: float = 60.0,
    ) -> Self:
        """Make this process the owner of a study; with ``take_over``, end the lease of a live owner.

        Without a heartbeat for ``lease_s`` seconds, other drivers may claim the study.
        """
        with storage_errors(f"of study '{study_name}'"):
            records = get_or_create_records(storage, study_name)
            lease = cls(storage, study_name, add_record(storage, records, heartbeat_s, lease_s), heartbeat_s, lease_s)
            try:
                lease._acquire(records, take_over)
            except BaseException:
                lease._end(TrialState.FAIL)
                raise
        lease._thread.start()
        return lease

    @property
    def lost(self) -> bool:
        """Whether another driver has taken over the study; an unreachable storage is no loss."""
        return self._ended is not None

    def check(self, thorough: bool = False) -> None:
        """Check that this driver is not known to have lost the study; if ``thorough``, read the storage now.

        Raises:
            StudyLockedError: another driver has taken over the study.
        """
        # A heartbeat is overdue if this process was stopped for a while.
        overdue = time.time() - self._last_heartbeat > _OVERDUE * self._heartbeat_s
        if not self.lost and (thorough or overdue):
            self._send_heartbeat()
        if self._ended is not None:
            by = self._ended.user_attrs.get(TAKEN_OVER_BY)
            driver = f"pid {by['pid']} on {by['host']} at {_format_time(by['at'])}" if by else "another program"
            raise StudyLockedError(f"study '{self._name}' was taken over by {driver}; this driver stops")

    def release(self) -> None:
        """End the lease; does nothing after a release or a loss."""
        self._stop.set()
        self._thread.join(_RELEASE_TIMEOUT_S)
        if not self.lost:
            self._end(TrialState.COMPLETE, time.time() - self._claimed_at)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _acquire(self, records: int, take_over: bool) -> None:
        """End all lower records and confirm this one; raise StudyLockedError if a lower driver may be alive."""
        deadline = time.monotonic() + _CLAIM_TIMEOUT_S
        while True:
            running = self._storage.get_all_trials(records, deepcopy=False, states=(TrialState.RUNNING,))
            lower = [record for record in running if record.number < self.epoch]
            blocking = [] if take_over else [record for record in lower if _read_owner(record).state != "dead"]
            if not blocking:
                break
            confirmed = [record for record in blocking if CONFIRMED in record.user_attrs]
            if confirmed or time.monotonic() > deadline:
                owner = _read_owner((confirmed or blocking)[0])
                raise StudyLockedError(describe_owner(self._name, owner), remedy="take_over")
            time.sleep(_POLL_S)
        for record in lower:
            self._take_over(record)
        with suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(self._id, CONFIRMED, _timestamp())
        # A higher claimer may have ended this record meanwhile: the claim succeeds only if the record still runs.
        self._refresh()
        self.check()

    def _take_over(self, record: FrozenTrial) -> None:
        own = ProcessIdentity.own()
        by = {"term": self.epoch, "host": own.host, "pid": own.pid, "at": _timestamp()}
        with suppress(UpdateFinishedTrialError):  # its driver has ended it meanwhile
            self._storage.set_trial_user_attr(record._trial_id, TAKEN_OVER_BY, by)
            self._storage.set_trial_state_values(record._trial_id, TrialState.FAIL)

    def _refresh(self) -> None:
        record = self._storage.get_trial(self._id)
        if record.state.is_finished():
            self._ended = record

    def _send_heartbeat(self) -> None:
        with self._sending, suppress(Exception):  # the storage cannot be reached: the next heartbeat tries again
            self._refresh()
            if not self.lost:
                self._storage.set_trial_user_attr(self._id, HEARTBEAT, _timestamp())
                self._last_heartbeat = time.time()

    def _send_heartbeats(self) -> None:
        try:
            while not self.lost and not self._stop.wait(self._heartbeat_s):
                self._send_heartbeat()
        finally:
            self._storage.remove_session()

    def _end(self, state: TrialState, *values: float) -> None:
        with suppress(Exception):  # a record that cannot be ended is dead once this process has exited
            self._storage.set_trial_state_values(self._id, state, values or None)


def read_owners(storage: BaseStorage, study_name: str) -> list[Owner]:
    """Return the drivers that own, owned or claimed a study, by lease epoch; write nothing."""
    with storage_errors(f"of study '{study_name}'"):
        try:
            records = storage.get_study_id_from_name(_records_name(study_name))
        except KeyError:  # no driver has claimed it yet
            return []
        return [_read_owner(record) for record in storage.get_all_trials(records, deepcopy=False)]


def get_or_create_records(storage: BaseStorage, study_name: str) -> int:
    """Return the id of the Optuna study with the lease records."""
    records = optuna.create_study(
        storage=storage, study_name=_records_name(study_name), direction="maximize", load_if_exists=True
    )
    return int(records._study_id)


def add_record(storage: BaseStorage, records: int, heartbeat_s: float, lease_s: float) -> FrozenTrial:
    """Write a lease record of this process and return it."""
    now = _timestamp()
    owner = {"process": asdict(ProcessIdentity.own()), "since": now, "beat_s": heartbeat_s, "lease_s": lease_s}
    record = create_trial(state=TrialState.RUNNING, user_attrs={OWNER: owner, HEARTBEAT: now})
    return storage.get_trial(storage.create_new_trial(records, record))


@dataclass(frozen=True)
class ProcessIdentity:
    """Identifies a process: process ids are unique only within one host, boot and pid namespace."""

    host: str
    boot: str
    pid_namespace: str | None
    pid: int
    started_s: float  # since the boot, so it does not change when the clock is set

    @classmethod
    def own(cls) -> Self:
        """Return the identity of this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _pid_namespace(), pid, _started_s(psutil.Process(pid)))

    def has_exited(self) -> bool:
        """Return whether the process is known to have exited; False if this process cannot know."""
        if (self.host, self.boot, self.pid_namespace) != (socket.gethostname(), _boot(), _pid_namespace()):
            return False
        try:
            process = psutil.Process(self.pid)
            if abs(_started_s(process) - self.started_s) > _CLOCK_TOLERANCE_S:
                return True  # another process reuses its id
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return not _pid_exists(self.pid)
        except psutil.AccessDenied:
            return False


def _pid_exists(pid: int) -> bool:
    """Return whether a process exists, even one of another user that /proc hides."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _started_s(process: psutil.Process) -> float:
    return round(float(process.create_time() - psutil.boot_time()), 2)


def _boot() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(psutil.boot_time())


def _pid_namespace() -> str | None:
    return os.readlink(_PID_NAMESPACE) if _PID_NAMESPACE.is_symlink() else None


def _read_owner(record: FrozenTrial) -> Owner:
    owner = record.user_attrs[OWNER]
    process = ProcessIdentity(**owner["process"])
    since, last_heartbeat = map(datetime.fromisoformat, (owner["since"], record.user_attrs[HEARTBEAT]))
    state = "ended" if record.state.is_finished() else _owner_state(process, last_heartbeat, owner)
    return Owner(record.number, process.host, process.pid, since, last_heartbeat, state, owner["lease_s"])


def _owner_state(process: ProcessIdentity, last_heartbeat: datetime, owner: dict[str, Any]) -> OwnerState:
    silence_s = (datetime.now(UTC) - last_heartbeat).total_seconds()
    if silence_s > owner["lease_s"] or process.has_exited():
        return "dead"
    return "live" if silence_s <= _UNKNOWN * owner["beat_s"] else "unknown"


def _records_name(study_name: str) -> str:
    return f"{study_name}.owners"


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def describe_owner(study_name: str, owner: Owner) -> str:
    """Return who runs a study, and until when."""
    return (
        f"study '{study_name}' is being run by pid {owner.pid} on {owner.host} since {_format_time(owner.since)}, last "
        f"heartbeat {_format_time(owner.last_heartbeat)}; wait for it (without another heartbeat its lease expires at "
        f"{_format_time(owner.expires_at)})"
    )


def _format_time(time: datetime | str) -> str:
    time = datetime.fromisoformat(time) if isinstance(time, str) else time
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
