"""Brings something outside up to date on a thread of its own, so that nobody waits for it; what fails is tried again.

    mark(key) --> due keys, oldest first --the thread: deliver(key)--> delivered
                       ^-- failed: back to the end, then a pause (1 s, doubling to 30 s while nothing succeeds)

A key says what has changed, not how: ``deliver`` reads the newest wanted state itself, so any number of marks before it
are one delivery, and a mark during it makes one more. ``mark`` never waits; only ``flush`` and ``close`` do.
"""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0

K = TypeVar("K")


class Deliveries(Generic[K]):
    """The keys that are still due, and the thread that delivers them."""

    def __init__(
        self, deliver: Callable[[K], None], failed: Callable[[Exception], None], recovered: Callable[[], None]
    ) -> None:
        """Start the thread, which calls all three until ``close``.

        Args:
            deliver: makes the outside agree with the newest state of a key; raises where it cannot.
            failed: told of a first failure, and again only after a recovery.
            recovered: told when nothing is due any more after a failure.
        """
        self._deliver, self._tell_failed, self._tell_recovered = deliver, failed, recovered
        self._due: dict[K, bool] = {}  # False while it is being delivered as it is now
        self._failing = self._hurried = self._ended = self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="gitdist-deliveries", daemon=True)
        self._thread.start()

    def mark(self, *keys: K) -> None:
        """Note that ``keys`` have changed."""
        with self._changed:
            if not self._abandoned:
                self._due.update(dict.fromkeys(keys, True))
                self._changed.notify_all()

    def flush(self, patience_s: float) -> list[K]:
        """Wait until nothing is due, with short pauses only, at most ``patience_s``; return what still is."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._due, timeout=patience_s)
            self._hurried = False
            return list(self._due)

    def close(self, patience_s: float) -> list[K]:
        """Flush, end the thread, and return what could not be delivered; a second time does nothing."""
        if self._ended:
            return []
        left = self.flush(patience_s)
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if not left and not self._abandoned:  # else it may hang in a call; it ends with the process
            self._thread.join()
        return left

    def abandon(self) -> None:
        """Drop what is due and end the thread, without waiting for a delivery under way; later marks do nothing."""
        with self._changed:
            self._ended = self._abandoned = True
            self._due.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        pause_s = 0.0
        while (key := self._begin(pause_s)) is not None:
            try:
                self._deliver(key)
            except Exception as error:  # whatever the outside raises
                pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
                self._put_back(key, error)
            else:
                pause_s = 0.0
                self._settle(key)

    def _begin(self, pause_s: float) -> K | None:
        """Wait out the pause, of which a hurry leaves the first step only, and then for a due key; None = the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._hurried, timeout=pause_s - FIRST_PAUSE_S)
            self._changed.wait_for(lambda: self._ended, timeout=min(pause_s, FIRST_PAUSE_S))
            self._changed.wait_for(lambda: self._ended or self._due)
            if self._ended:
                return None
            key = next(iter(self._due))
            self._due[key] = False
            return key

    def _put_back(self, key: K, error: Exception) -> None:
        with self._changed:
            if not self._abandoned:
                self._due[key] = self._due.pop(key)
            first = not self._failing and not self._ended
            self._failing = True
        if first:
            self._tell_failed(error)

    def _settle(self, key: K) -> None:
        with self._changed:
            if not self._due.get(key):
                self._due.pop(key, None)
            recovered = self._failing and not self._due and not self._ended
            self._failing = self._failing and not recovered
            self._changed.notify_all()
        if recovered:
            self._tell_recovered()
