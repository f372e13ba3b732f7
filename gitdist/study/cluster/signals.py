"""Signals: the first Ctrl-C stops each trial after its current epoch, the second stops all of them at once.

SIGTERM, which a preempted machine receives before it is shut down, counts as Ctrl-C.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from gitdist.outage import stop_waiting

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible(on_first: Callable[[], None] | None = None) -> Iterator[None]:
    """Call ``on_first``, if given, at the first signal; raise KeyboardInterrupt at every other signal.

    While a service is away, the first signal raises it too: epochs may be waiting for the service.
    Outside the main thread, Python allows no handlers, so signal handling does not change there.
    """
    pending = [on_first] if on_first else []

    def handle(number: int, frame: FrameType | None) -> None:
        was_waiting = stop_waiting()
        if was_waiting or not pending:
            raise KeyboardInterrupt
        pending.pop()()

    with restoring_handlers():
        if _is_main_thread():
            for number in _SIGNALS:
                signal.signal(number, handle)
        yield


@contextmanager
def restoring_handlers() -> Iterator[None]:
    """Restore the current signal handlers at the end of the block; Ray replaces that of SIGTERM when it starts."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if _is_main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
