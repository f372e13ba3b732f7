"""Pins: the artifacts that running studies use, which stay.

    process of a study                              deletion (any process, any host)
    with the lock of the pins:                      with the lock of the pins:
      write TOKEN.json                                read the pins that are not stale
      artifact still there? else build it again       artifact in none of them? move it aside
    thread: renew the file's time                   where locks do not reach: read again, pinned? move it back

A pin is stale if its file is older than ``PIN_STALE_S`` by the clock that the times of these files come from.
"""

import json
import os
import secrets
import threading
from collections.abc import Iterable
from contextlib import suppress

from gitdist.disk import disk_errors, locked, read_object, write_atomic
from gitdist.store.artifact import ArtifactId
from gitdist.store.layout import StoreLayout

PIN_STALE_S = 300.0
RENEW_S = 20.0


class Pin:
    """What this process uses for one study, in a file to be renewed every ``RENEW_S`` seconds."""

    def __init__(self, layout: StoreLayout, study: str) -> None:
        self._layout, self._study = layout, study
        self._file = layout.pins / f"{secrets.token_hex(8)}.json"
        self._artifacts = frozenset[str]()
        self._writing = threading.Lock()

    def add(self, artifacts: Iterable[ArtifactId]) -> None:
        """Pin these artifacts too."""
        with self._writing:
            wanted = self._artifacts.union(map(str, artifacts))
            if wanted != self._artifacts:
                with disk_errors(self._file), locked(self._layout.pin_lock):
                    self._write(wanted)

    def release(self) -> None:
        """Pin nothing from now on."""
        with suppress(OSError):  # a pin that stays becomes stale
            self._file.unlink()

    def renew(self) -> None:
        """Show that this process is alive."""
        with self._writing:
            if self._file.exists():
                os.utime(self._file)
            elif self._artifacts:  # the process was stopped for long and its pin deleted as stale
                self._write(self._artifacts)

    def _write(self, artifacts: frozenset[str]) -> None:
        write_atomic(self._file, json.dumps({"name": self._study, "artefacts": sorted(artifacts)}).encode())
        self._artifacts = artifacts


def pinned(layout: StoreLayout) -> dict[str, set[str]]:
    """Return, by artifact, the names of the studies that pin it; an unreadable pin may be of any artifact."""
    studies: dict[str, set[str]] = {}
    now = layout.now()
    for file in layout.pins.glob("*.json"):
        with suppress(FileNotFoundError):
            if now - file.stat().st_mtime <= PIN_STALE_S:
                pin = read_object(file) or {}
                artifacts = pin.get("artefacts")
                if not isinstance(artifacts, list):
                    artifacts, pin = list(layout.artifacts()), {"name": f"unreadable pin {file.name}"}
                for artifact in map(str, artifacts):
                    studies.setdefault(artifact, set()).add(str(pin.get("name")))
    return studies
