"""One builder at a time where no lock reaches: claims are files on a board that all contenders can list.

    contender A                        board (claims/)                      contender B
    writes  name.A  ticket 0  ------>  name.A: 0
                                       name.A: 0  name.B: 0  <------------  writes name.B  ticket 0
    reads all, takes 1 + highest --->  name.A: 1  name.B: 0
    waits: B is still choosing         name.A: 1  name.B: 2  <------------  reads all, takes 1 + highest
    nobody is before it: builds        name.A: 1, beats on                  waits for A: it is before it
    deletes name.A ----------------->  name.B: 2                            nobody is before it: builds

This is Lamport's bakery algorithm: a contender is before another whose ticket is higher, or equal with a higher token.
It needs no more of the place than writing, listing, reading and deleting. A thread rewrites the claim every few
seconds. A claim whose content a waiter has seen unchanged for ``stale_s`` on its own clock is dead, and the
waiter deletes it; no two clocks are ever compared. A contender that finds its claim deleted files a new one; a builder
goes on, for artefacts are the same whoever builds them and only one is put in place.

Who does not want to wait files ticket 0, which is before every other, and takes it back where anybody else is there.
"""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from gitdist.errors import StoreError
from gitdist.store.heartbeat import Heartbeat
from gitdist.store.place import Place

BOARD = "claims"

_BEATS = 6  # in the time after which a silent claim is dead
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 2.0  # between two looks at the board
_LOOKS = 4  # unchanged ones at least, before a claim is dead: a waiter that was stopped has seen nothing meanwhile


class Board:
    """The claims in one place.

    Args:
        place: where the claims are, under ``claims/``.
        stale_s: a claim that has not changed for so long, in seconds, is that of a dead contender.
    """

    def __init__(self, place: Place, stale_s: float) -> None:
        """Take the board of a place."""
        self._place, self._stale_s = place, stale_s
        self._watch = Watch(stale_s)  # of those that do not wait, from one try to the next

    @contextmanager
    def turn_if_free(self, name: str, lock: str) -> Iterator[bool]:
        """Keep the turn to build ``name`` to the end of the block if nobody else has or awaits it; yield whether.

        Tries of several contenders at the same moment may all fail.

        Args:
            name: the artefact's.
            lock: as for ``turn``; where the caller has not got the lock, a name that no lock has.
        """
        own = _Claim(self._place, name, lock)
        if self._rivals(own, name, lock, self._watch):
            yield False
            return
        with self._filed(own):
            own.write(ticket=0)
            yield not self._rivals(own, name, lock, self._watch)

    @contextmanager
    def turn(self, name: str, lock: str) -> Iterator[None]:
        """Wait until it is this process's turn to build ``name``, and keep it to the end of the block.

        Args:
            name: the artefact's.
            lock: the name of the file lock that the caller holds. Whoever else claims to hold it is dead.
        """
        own = _Claim(self._place, name, lock)
        with self._filed(own):
            self._await(own, name, lock)
            yield

    @contextmanager
    def _filed(self, own: "_Claim") -> Iterator[None]:
        heart = Heartbeat(own.beat, self._stale_s / _BEATS)
        try:
            yield
        finally:
            heart.stop()
            with suppress(OSError, StoreError):  # a claim that stays goes stale
                self._place.delete(own.file)

    def _await(self, own: "_Claim", name: str, lock: str) -> None:
        watch, pause_s = Watch(self._stale_s), _FIRST_PAUSE_S
        while True:
            rivals = self._rivals(own, name, lock, watch)
            tickets = [rival.ticket for rival in rivals]
            if not own.is_filed:
                own.write(ticket=0)
            elif own.ticket == 0 and None not in tickets:
                own.write(ticket=1 + max((ticket or 0 for ticket in tickets), default=0))
            elif own.ticket and not any(rival.is_before(own.ticket, own.file) for rival in rivals):
                return
            else:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S, self._stale_s / _BEATS)

    def _rivals(self, own: "_Claim", name: str, lock: str, watch: "Watch") -> "list[_Seen]":
        """Look at the board: return the others' claims that are alive, and note whether our own is there."""
        claims = self._read(name)
        own.is_filed = claims.pop(own.file, None) is not None
        return [seen for file, seen in claims.items() if self._is_alive(file, seen, watch, lock)]

    def _read(self, name: str) -> "dict[str, _Seen]":
        files = [f"{BOARD}/{file}" for file in self._place.names(BOARD) if file.startswith(f"{name}.")]
        contents = {file: self._place.read(file) for file in files}
        return {file: _Seen.of(file, content) for file, content in contents.items() if content is not None}

    def _is_alive(self, file: str, seen: "_Seen", watch: "Watch", lock: str) -> bool:
        if seen.lock != lock and watch.is_alive(file, seen.content, time.monotonic()):
            return True
        self._place.delete(file)
        return False


class Watch:
    """Judges by what one observer has seen of claims, on the observer's own clock, which of them are dead."""

    def __init__(self, stale_s: float) -> None:
        """Start without having seen any."""
        self._stale_s = stale_s
        self._seen: dict[str, tuple[bytes, float, float]] = {}  # content, time of the last look, time seen unchanged

    def is_alive(self, file: str, content: bytes, now: float) -> bool:
        """Take note of a look at a claim and tell whether it has changed within ``stale_s`` seconds of watching.

        Args:
            file: the claim's.
            content: as it is now.
            now: the observer's monotonic clock, in seconds.
        """
        before, looked_at, unchanged_s = self._seen.get(file, (None, now, 0.0))
        # The time between two looks counts no more than a part: the observer itself may have been stopped.
        unchanged_s = unchanged_s + min(now - looked_at, self._stale_s / _LOOKS) if content == before else 0.0
        self._seen[file] = content, now, unchanged_s
        return unchanged_s < self._stale_s


@dataclass(frozen=True)
class _Seen:
    """Somebody's claim; ``ticket`` is 0 while it is being chosen and None where the file is only half written."""

    file: str
    content: bytes
    ticket: int | None
    lock: str | None

    @classmethod
    def of(cls, file: str, content: bytes) -> "_Seen":
        try:
            values = json.loads(content)
            return cls(file, content, int(values["ticket"]), str(values["lock"]))
        except (ValueError, KeyError, TypeError):
            return cls(file, content, None, None)

    def is_before(self, ticket: int, file: str) -> bool:
        return self.ticket is None or (self.ticket, self.file) < (ticket, file)


class _Claim:
    """This process's own claim, rewritten by its heartbeat."""

    def __init__(self, place: Place, name: str, lock: str) -> None:
        # Host names and process ids are no names: containers of several hosts have the same ones.
        self.file = f"{BOARD}/{name}.{secrets.token_hex(8)}"
        self.ticket: int | None = None
        self.is_filed = False  # at the last look
        self._place, self._lock, self._beats = place, lock, 0
        self._writing = threading.Lock()

    def write(self, ticket: int) -> None:
        """File the claim, anew where it was deleted, with this ticket."""
        with self._writing:
            self.ticket = ticket
            self._write()

    def beat(self) -> None:
        """Change the claim's content if it is filed; one that another contender has deleted stays so."""
        with self._writing:
            if self.ticket is not None and self._place.read(self.file) is not None:
                self._write()

    def _write(self) -> None:
        self._beats += 1
        values = {"ticket": self.ticket, "beat": self._beats, "lock": self._lock}
        self._place.write(self.file, json.dumps(values).encode())
