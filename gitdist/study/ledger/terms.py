"""How the ledger holds the terms of a study's owners: as trials of an Optuna study beside it, ``NAME.owners``.

A term enters the storage in one write, RUNNING and with its owner's record, so no half-made one is left by a kill.
"""

from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from optuna.exceptions import DuplicatedStudyError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.study.ledger.process import ProcessIdentity

RECORD = "gitdist.owner"  # the owner's process, since when it claims, its beat_s and lease_s
BEAT = "gitdist.beat"  # its last sign of life
HOLDS = "gitdist.holds"  # since when the claim is decided for it
TAKER = "gitdist.taken_over"  # by whom and when

OwnerState = Literal["live", "unknown", "dead", "ended"]
_OVERDUE = 3  # beats that do not come before an owner's state is unknown


@dataclass(frozen=True)
class Owner:
    """A driver that owns, owned or claimed a study; times are UTC.

    ``live``: its beats come. ``unknown``: they have stopped, but its lease has not run out. ``dead``: its process is
    seen to be gone or its lease has run out, so the next claim succeeds. ``ended``: released, refused or taken over.
    """

    term: int
    host: str
    pid: int
    since: datetime
    last_beat: datetime
    state: OwnerState
    lease_s: float

    @property
    def free_at(self) -> datetime:
        """When the lease runs out without another sign of life."""
        return self.last_beat + timedelta(seconds=self.lease_s)


def find_terms(storage: BaseStorage, study_name: str) -> int | None:
    """Return the storage's id of the study that holds the terms; None before the first claim."""
    try:
        return storage.get_study_id_from_name(_owners_name(study_name))
    except KeyError:
        return None


def obtain_terms(storage: BaseStorage, study_name: str) -> int:
    """Return the storage's id of the study that holds the terms, creating it where needed."""
    found = find_terms(storage, study_name)
    if found is not None:
        return found
    with suppress(DuplicatedStudyError):  # by another driver, just now
        return storage.create_new_study([StudyDirection.MAXIMIZE], _owners_name(study_name))
    return storage.get_study_id_from_name(_owners_name(study_name))


def add_term(storage: BaseStorage, terms: int, beat_s: float, lease_s: float) -> FrozenTrial:
    """Write a term of this process and return it."""
    now = stamp()
    record = {"process": asdict(ProcessIdentity.own()), "since": now, "beat_s": beat_s, "lease_s": lease_s}
    term = create_trial(state=TrialState.RUNNING, user_attrs={RECORD: record, BEAT: now})
    return storage.get_trial(storage.create_new_trial(terms, term))


def running_below(storage: BaseStorage, terms: int, number: int) -> list[FrozenTrial]:
    """Return the terms below ``number`` that have not ended."""
    running = storage.get_all_trials(terms, deepcopy=False, states=(TrialState.RUNNING,))
    return [term for term in running if term.number < number]


def owner_of(term: FrozenTrial) -> Owner:
    """Return who stands behind a term, and whether that driver lives."""
    record = term.user_attrs[RECORD]
    process = ProcessIdentity(**record["process"])
    since, last_beat = (datetime.fromisoformat(text) for text in (record["since"], term.user_attrs[BEAT]))
    state = "ended" if term.state.is_finished() else _state(process, last_beat, record)
    return Owner(term.number, process.host, process.pid, since, last_beat, state, record["lease_s"])


def stamp() -> str:
    """Return the present time as terms have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _state(process: ProcessIdentity, last_beat: datetime, record: dict[str, Any]) -> OwnerState:
    silence_s = (datetime.now(UTC) - last_beat).total_seconds()
    if silence_s > record["lease_s"] or process.is_seen_gone():
        return "dead"
    return "live" if silence_s <= _OVERDUE * record["beat_s"] else "unknown"


def _owners_name(study_name: str) -> str:
    return f"{study_name}.owners"
