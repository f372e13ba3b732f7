"""Waits while a service is away: a database server, an object store.

    a call fails --> one line --> the call is repeated after growing pauses --> it succeeds --> one line
                                                                            --> still away after 10 minutes: the error

The lines are messages of this module's logger: a study shows them, a worker writes them to its log.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from gitdist.errors import GitdistError, SpecError, first_line

_VARIABLE, _DEFAULT_S = "GITDIST_OUTAGE_S", 600.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0
_logger = logging.getLogger(__name__)
_stopping = threading.Event()
_away: set["Outage"] = set()

T = TypeVar("T")


class Outage:
    """The outages of one service in this process. Thread-safe."""

    def __init__(self, service: str, error: type[GitdistError]) -> None:
        """Wait for ``service``, as messages call it, while calls raise ``error``.

        Raises:
            SpecError: ``$GITDIST_OUTAGE_S`` is no number of seconds.
        """
        self._service, self._error, self._timeout_s = service, error, _timeout_s()
        self._lock = threading.Lock()
        self._num_waiting = 0  # threads
        self._since = 0.0  # time.monotonic() when the first of them began to wait
        self._given_up = False

    def wait_out(self, call: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """Return ``call()``; if the service is away, wait and return ``again()``, by default the same call.

        Once a wait has been in vain, calls are not repeated until one succeeds.

        Raises:
            GitdistError: the service is still away after the time limit, or when this process is to stop.
        """
        try:
            done = call()
        except self._error as error:
            self._begin(error)
        else:
            self._given_up = False
            return done
        answered, pause_s = False, _FIRST_PAUSE_S
        try:
            while True:
                _stopping.wait(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                try:
                    done = (again or call)()
                except self._error:
                    if _stopping.is_set() or time.monotonic() - self._since >= self._timeout_s:
                        raise
                except Exception:  # an answer too: a file is missing, the study was taken over
                    answered = True
                    raise
                else:
                    answered = True
                    return done
        finally:
            self._end(answered)

    def _begin(self, error: GitdistError) -> None:
        """Count this thread as waiting, or raise ``error`` if nothing is waited for any more."""
        with self._lock:
            if self._given_up or _stopping.is_set():
                raise error
            self._num_waiting += 1
            if self._num_waiting > 1:
                return
            self._since = time.monotonic()
        _away.add(self)
        cause = first_line(error.__cause__ or error)
        _logger.warning("%s cannot be used (%s); waiting up to %.0f s", self._service, cause, self._timeout_s)

    def _end(self, answered: bool) -> None:
        with self._lock:
            self._num_waiting -= 1
            self._given_up = not answered
            if self._num_waiting > 0:
                return
        _away.discard(self)
        if answered:
            _logger.warning("%s can be used again, after %.0f s", self._service, time.monotonic() - self._since)


def stop_waiting() -> bool:
    """End all waits of this process, which is to stop, and begin no others; return whether there was one."""
    _stopping.set()
    return bool(_away)


def resume_waiting() -> None:
    """Wait for services again: this process is not to stop after all, as a program that caught KeyboardInterrupt."""
    _stopping.clear()


def _timeout_s() -> float:
    text = os.environ.get(_VARIABLE, str(_DEFAULT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise SpecError(f"{_VARIABLE} must be the seconds to wait for a service that is away, but it is '{text}'")
    return seconds
