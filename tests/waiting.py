"""Waiting for what another thread or process does."""

import time
from collections.abc import Callable


def until(condition: Callable[[], object], pause_s: float = 0.01, limit_s: float = 60.0) -> None:
    """Return once ``condition`` is met, looking again after each pause; fail after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(pause_s)
