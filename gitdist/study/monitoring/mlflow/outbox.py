"""Delivers changes to an external store on its own thread, so that callers do not wait; retries failed deliveries.

    enqueue(key)       --> key is pending in full     --the thread: deliver(key, None)---> done
    append(key, item)  --> key is pending with items  --the thread: deliver(key, items)--> done
                           ^-- failed: pending in full, after a pause (1 s, doubled up to 30 s)

A delivery in full reads the newest state itself: all calls before it lead to one delivery, and a call during it leads
to one more. New keys are delivered before failed ones. Only ``flush``, ``close`` and, briefly, ``abandon`` block.
"""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
_ABANDON_S = 2.0  # for the current delivery when all others are abandoned

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True)
class _Pending(Generic[T]):
    items: tuple[T, ...] | None = None  # None = everything
    due_at: float = -math.inf  # time.monotonic()
    pause_s: float = 0.0  # before it, after a failure


class Outbox(Generic[K, T]):
    """The pending keys, and the thread that delivers them."""

    def __init__(
        self,
        deliver: Callable[[K, Sequence[T] | None], None],
        on_failure: Callable[[Exception], None],
        on_recovery: Callable[[], None],
    ) -> None:
        """Start the thread, which calls all three until ``close``."""
        self._deliver, self._on_failure, self._on_recovery = deliver, on_failure, on_recovery
        self._pending: dict[K, _Pending[T]] = {}
        self._delivering: tuple[K, ...] = ()  # the key of the current delivery, if any
        self._failing = self._ended = self._abandoned = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="gitdist-outbox", daemon=True)
        self._thread.start()

    def enqueue(self, *keys: K) -> None:
        """Deliver the newest state of ``keys``."""
        with self._changed:
            if not self._abandoned:
                self._pending.update(dict.fromkeys(keys, _Pending()))
                self._changed.notify_all()

    def append(self, key: K, item: T) -> None:
        """Deliver an item of a key after those that are pending; the newest state if that is pending."""
        with self._changed:
            if not self._abandoned:
                items = self._pending.get(key, _Pending(items=())).items
                self._pending[key] = _Pending(None if items is None else (*items, item))
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> list[K]:
        """Retry what has failed and wait until nothing is pending; return what is pending after ``timeout_s``."""
        with self._changed:
            self._pending = {key: _Pending(pending.items) for key, pending in self._pending.items()}
            self._changed.notify_all()
            self._changed.wait_for(lambda: not (self._pending or self._delivering), timeout=timeout_s)
            return list(dict.fromkeys([*self._delivering, *self._pending]))

    def close(self, timeout_s: float) -> list[K]:
        """Flush, end the thread, and return what was not delivered; a second call does nothing."""
        if self._ended:
            return []
        undelivered = self.flush(timeout_s)
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if not undelivered and not self._abandoned:  # else the thread may hang in a call, and ends with the process
            self._thread.join()
        return undelivered

    def abandon(self) -> None:
        """Drop what is pending and end the thread; later calls do nothing."""
        with self._changed:
            self._ended = self._abandoned = True
            self._pending, self._delivering = {}, ()
            self._changed.notify_all()
        self._thread.join(_ABANDON_S)

    def _work(self) -> None:
        while (entry := self._next_due()) is not None:
            key, pending = entry
            try:
                self._deliver(key, pending.items)
            except Exception as error:  # the store may raise anything
                if not self._failing and not self._ended:
                    self._on_failure(error)
                with self._changed:
                    self._failing, self._delivering = True, ()
                    if not self._abandoned:
                        self._retry(key, pending.pause_s)
            else:
                if self._failing and not self._pending and not self._ended:
                    self._failing = False
                    self._on_recovery()
                with self._changed:
                    self._delivering = ()
                    self._changed.notify_all()

    def _next_due(self) -> tuple[K, _Pending[T]] | None:
        """Wait for the next key that is due; None at the end."""
        with self._changed:
            while not self._ended:
                key = min(self._pending, key=lambda key: self._pending[key].due_at, default=None)
                wait_s = None if key is None else self._pending[key].due_at - time.monotonic()
                if key is not None and wait_s is not None and wait_s <= 0:
                    self._delivering = (key,)
                    return key, self._pending.pop(key)
                self._changed.wait(wait_s)
        return None

    def _retry(self, key: K, pause_s: float) -> None:
        if key in self._pending:  # it has changed meanwhile
            self._pending[key] = _Pending()
        else:
            pause_s = min(max(2 * pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
            self._pending[key] = _Pending(due_at=time.monotonic() + pause_s, pause_s=pause_s)
