"""Ctrl-C once: the trials stop after their present epoch; twice: at once.

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
    """Turn the user's first signal into ``on_first``, if there is one, and every other into KeyboardInterrupt.

    Off the main thread, where Python allows no handlers, signals stay what they were.
    """
    waiting = [on_first] if on_first else []

    def handle(number: int, frame: FrameType | None) -> None:
        if not waiting:
            raise KeyboardInterrupt
        waiting.pop()()

    with handlers_kept():
        if _is_main_thread():
            for number in _SIGNALS:
                signal.signal(number, handle)
        yield


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Give the signals in the end the handlers that they have now; Ray, for one, takes SIGTERM's when it starts."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        if _is_main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
