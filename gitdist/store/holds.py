"""What running studies hold: a file for each process, with its artefacts, whose time a thread renews.

    process of a study                                 whoever makes room (any process, any host)
    lock holds ............................            lock holds ...............................
      write NAME.<token>.json                            read the files whose time is recent
      artefact still there? else build it again          artefact in none of them? move it away
    thread: renew the file's time                      (on another host, where the lock does not reach:
                                                        look again, and move it back if it is held by now)

"Recent" compares a file's time with that of one just written beside it: both are the file server's.
"""

import json
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gitdist.disk import read_object, write_atomic
from gitdist.store.heartbeat import Heartbeat
from gitdist.store.keys import ArtefactId

HOLD_STALE_S = 300.0  # a hold that was not renewed for so long is that of a dead process
_RENEW_S = 20.0


class Hold:
    """The artefacts that this process holds under one study's name."""

    def __init__(self, directory: Path, name: str) -> None:
        """Begin without any; ``name`` is the study's."""
        self._file = directory / f"{secrets.token_hex(8)}.json"
        self._name, self._artefacts = name, frozenset[str]()
        self._writing = threading.Lock()
        self._heart = Heartbeat(self._renew, _RENEW_S)

    def note(self, artefacts: Iterable[ArtefactId]) -> None:
        """Hold these artefacts too; the caller has the lock of the holds."""
        with self._writing:
            self._write(self._artefacts.union(map(str, artefacts)))

    def holds(self, artefact: ArtefactId) -> bool:
        """Tell whether the artefact is noted already."""
        return str(artefact) in self._artefacts

    def release(self) -> None:
        """Hold nothing any more."""
        self._heart.stop()
        with suppress(OSError):  # a hold that stays goes stale
            self._file.unlink()

    def _write(self, artefacts: frozenset[str]) -> None:
        write_atomic(self._file, json.dumps({"name": self._name, "artefacts": sorted(artefacts)}).encode())
        self._artefacts = artefacts

    def _renew(self) -> None:
        with self._writing:
            if self._file.exists():
                os.utime(self._file)
            elif self._artefacts:  # somebody took a process that was long stopped for a dead one
                self._write(self._artefacts)


def holders(directory: Path) -> dict[str, set[str]]:
    """Return, for the name of each artefact that is held, the names of the studies that hold it."""
    held: dict[str, set[str]] = {}
    now = server_time(directory)
    for file in directory.glob("*.json"):
        if not is_stale(file, now):
            hold = read_object(file) or {}
            for artefact in hold.get("artefacts", ()):
                held.setdefault(artefact, set()).add(str(hold.get("name")))
    return held


def is_stale(hold: Path, now: float) -> bool:
    """Tell whether a hold's process is dead; ``now`` is the file server's time."""
    try:
        return now - hold.stat().st_mtime > HOLD_STALE_S
    except FileNotFoundError:
        return True


def server_time(directory: Path) -> float:
    """Return the time, in seconds, by the clock that the times of files in ``directory`` come from."""
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".clock-") as file:
            os.utime(file.fileno())
            return os.stat(file.name).st_mtime
    except OSError:  # it can only be read: then this host's clock must do
        return time.time()
