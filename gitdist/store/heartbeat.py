"""Signs of life that a thread gives while its owner works."""

import threading
from collections.abc import Callable
from contextlib import suppress

from gitdist.errors import StoreError


class Heartbeat:
    """Calls ``beat`` every ``interval_s`` seconds on a thread of its own until it is stopped.

    A beat that the disk or the network refuses is left out: whether the work itself can go on, its owner finds out.
    """

    def __init__(self, beat: Callable[[], None], interval_s: float) -> None:
        """Start beating, the first time after one interval."""
        self._beat, self._interval_s = beat, interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="store-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Return once no beat is under way or to come."""
        self._stopped.set()
        # A generator that is collected as garbage can be closed on any thread, this one too.
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            with suppress(OSError, StoreError):
                self._beat()
