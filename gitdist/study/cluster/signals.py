"""Signals: Ctrl-C once stops the trials after their present epoch, twice stops them now.

SIGTERM, which announces the end of a preempted machine, counts as Ctrl-C.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible(on_first: Callable[[], None] | None = None) -> Iterator[None]:
    """Call ``on_first`` at the first signal, if it is given; raise KeyboardInterrupt at every other.

    Outside the main thread, where Python allows no handlers, signals are handled as before.
    """
    waiting = [on_first] if on_first else []

    def handle(number: int, frame: FrameType | None) -> None:
        if not waiting:
            raise KeyboardInterrupt
        waiting.pop()()

    with restoring_handlers():
        if _is_main_thread():
            for number in _SIGNALS:
                signal.signal(number, handle)
        yield


@contextmanager
def restoring_handlers() -> Iterator[None]:
    """Restore the present signal handlers at the end of the block; Ray replaces that of SIGTERM when it starts."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if _is_main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
