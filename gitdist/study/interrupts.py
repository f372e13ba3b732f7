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
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting = [on_first] if on_first else []

    def handle(number: int, frame: FrameType | None) -> None:
        if not waiting:
            raise KeyboardInterrupt
        waiting.pop()()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
