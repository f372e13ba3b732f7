"""What this process uses: marks the time of use, and keeps what its studies hold from being removed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from gitdist.disk import disk_errors, locked
from gitdist.store.holds import Hold
from gitdist.store.keys import ArtefactId
from gitdist.store.layout import Layout

_MARK_S = 60.0  # between two marks of one artefact's use


class Usage:
    """The uses of one store by one process."""

    def __init__(self, layout: Layout) -> None:
        """Begin without any; ``layout`` is the store's."""
        self._layout = layout
        self._marked: dict[ArtefactId, float] = {}  # monotonic clock
        self._holds: list[Hold] = []

    def note(self, artefact: ArtefactId) -> bool:
        """Note the use of an artefact in the holds, then in its mark; tell whether it is still there."""
        missing = [hold for hold in self._holds if not hold.holds(artefact)]
        if missing:
            with disk_errors(self._layout.holds), locked(self._layout.holds_lock):
                for hold in missing:
                    hold.note([artefact])
        if not self._layout.place(artefact).exists():
            return False
        self._mark(artefact)
        return True

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Hold what was used, or is used in the block, under a study's name."""
        hold = Hold(self._layout.holds, name)
        self._holds.append(hold)
        try:
            with disk_errors(self._layout.holds), locked(self._layout.holds_lock):
                hold.note(list(self._marked))
            yield
        finally:
            self._holds.remove(hold)
            hold.release()

    def _mark(self, artefact: ArtefactId) -> None:
        now = time.monotonic()
        if artefact not in self._marked or now - self._marked[artefact] >= _MARK_S:
            self._marked[artefact] = now
            with suppress(OSError):  # a disk that is full, or can only be read
                self._layout.used_mark(artefact).touch()
