"""Brings something outside up to date on a thread of its own, so that nobody waits for it; what fails is tried again.

    mark(key) --> due, at once --the thread: deliver(key)--> delivered
                   ^-- failed: due again after a pause of its own (1 s, doubling to 30 s)

A key says what has changed, not how: ``deliver`` reads the newest wanted state itself, so any number of marks before it
are one delivery, and a mark during it makes one more. What was just marked comes before what has failed. ``mark`` never
waits; only ``flush``, ``close`` and, for a moment, ``abandon`` do.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
_LAST_S = 2.0  # for what is under way when all is abandoned

K = TypeVar("K")


@dataclass(frozen=True)
class _Due:
    """When a key is due: at once, or ``pause_s`` after it failed; a hurry leaves the first pause of it."""

    failed_at: float = -math.inf  # of time.monotonic
    pause_s: float = 0.0

    def at(self, hurried: bool) -> float:
        return self.failed_at + (min(self.pause_s, FIRST_PAUSE_S) if hurried else self.pause_s)

    def failed(self) -> "_Due":
        return _Due(time.monotonic(), min(max(2 * self.pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S))


class Outbox(Generic[K]):
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
        self._due: dict[K, _Due] = {}
        self._under_way: tuple[K, ...] = ()  # the one key that is being delivered, if any
        self._failing = self._hurried = self._ended = self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="gitdist-deliveries", daemon=True)
        self._thread.start()

    def mark(self, *keys: K) -> None:
        """Note that ``keys`` have changed."""
        with self._changed:
            if not self._abandoned:
                self._due.update(dict.fromkeys(keys, _Due()))
                self._changed.notify_all()

    def flush(self, patience_s: float) -> list[K]:
        """Wait until nothing is due, with short pauses only, at most ``patience_s``; return what still is."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not (self._due or self._under_way), timeout=patience_s)
            self._hurried = False
            return list(dict.fromkeys([*self._under_way, *self._due]))

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
        """Drop what is due and end the thread, waiting a moment for a delivery under way; later marks do nothing."""
        with self._changed:
            self._ended = self._abandoned = True
            self._due, self._under_way = {}, ()
            self._changed.notify_all()
        self._thread.join(_LAST_S)

    def _work(self) -> None:
        while (begun := self._begin()) is not None:
            key, due = begun
            try:
                self._deliver(key)
            except Exception as error:  # whatever the outside raises
                self._put_back(key, due, error)
            else:
                self._settle()

    def _begin(self) -> tuple[K, _Due] | None:
        """Wait for the next key that is due; None = the end."""
        with self._changed:
            while not self._ended:
                key = min(self._due, key=lambda key: self._due[key].at(self._hurried), default=None)
                if key is None:
                    self._changed.wait()
                    continue
                wait_s = self._due[key].at(self._hurried) - time.monotonic()
                if wait_s <= 0:
                    self._under_way = (key,)
                    return key, self._due.pop(key)
                self._changed.wait(wait_s)
        return None

    def _put_back(self, key: K, due: _Due, error: Exception) -> None:
        if not self._failing and not self._ended:
            self._tell_failed(error)
        with self._changed:
            self._failing = True
            self._under_way = ()
            if not self._abandoned:
                self._due.setdefault(key, due.failed())  # unless it was marked meanwhile

    def _settle(self) -> None:
        if self._failing and not self._due and not self._ended:
            self._failing = False
            self._tell_recovered()
        with self._changed:
            self._under_way = ()
            self._changed.notify_all()
