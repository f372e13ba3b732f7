"""Signals that ask for a stop: Ctrl-C, SIGTERM (batch systems, systemd, preempted machines), SIGHUP (closed terminals).

    signal --> handler on the main thread: first   ``on_first``: each trial stops after its current epoch
                                           second, or first without ``on_first``: KeyboardInterrupt
                                           later   nothing: this process is ending
           --> pipe, written at once, also while the main thread is blocked --> ``stop_requested``

The senders of SIGTERM and SIGHUP often kill a process that still runs after 30 s, so these count as a second signal
after ``_EPOCHS_S``. A command that still runs ``_END_S`` after it has begun to end is ended; another program that runs
a study, such as a notebook, is not.

SIGINT and SIGHUP stay ignored if they were ignored when the process started: a script's shell ignores SIGINT in the
commands that it runs in the background, ``nohup`` ignores SIGHUP.
"""

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from gitdist.outage import resume_waiting, stop_waiting

STOPPED = 130  # exit code of a process that was asked to stop

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RESTORED = (*_SIGNALS, signal.SIGUSR1)
_EPOCHS_S = 15.0
_END_S = 30.0
_REPORT_S = 5.0


class _StopRequest:
    """What this process knows of requests to stop it, while it handles the signals."""

    def __init__(self, *, is_command: bool = False) -> None:
        self.is_ending = False
        self._is_command = is_command
        self.on_overdue: Callable[[], None] | None = None
        self._timers: list[threading.Timer] = []
        self._received: set[int] = set()
        self._reader, self._writer = socket.socketpair()
        for end in (self._reader, self._writer):
            end.setblocking(False)
        self._previous_writer = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def received(self, wait_s: float) -> bool:
        """Return whether a signal has arrived, or arrives within ``wait_s``."""
        if not self._received.intersection(_SIGNALS):
            select.select([self._reader], [], [], wait_s)
            with suppress(BlockingIOError):
                self._received.update(self._reader.recv(1024))
        return bool(self._received.intersection(_SIGNALS))

    def repeat_later(self, number: int) -> None:
        """Send this process the signal again if it still runs after ``_EPOCHS_S``."""
        self._start_timer(_EPOCHS_S, lambda: os.kill(os.getpid(), number))

    def begin_to_end(self) -> None:
        """Ignore signals from now on; end this process, if it is a command, after ``_END_S``."""

        def end() -> None:
            if self.on_overdue:
                report = threading.Thread(target=self.on_overdue, daemon=True)
                report.start()
                report.join(_REPORT_S)  # the main thread may hold a lock that it needs
            os._exit(STOPPED)

        if not self.is_ending and self._is_command:
            self._start_timer(_END_S, end)
        self.is_ending = True

    def close(self) -> None:
        """Cancel the timers and close the pipe."""
        for timer in self._timers:
            timer.cancel()
        signal.set_wakeup_fd(self._previous_writer)
        self._reader.close()
        self._writer.close()

    def _start_timer(self, after_s: float, function: Callable[[], None]) -> None:
        timer = threading.Timer(after_s, function)
        timer.daemon = True
        timer.start()
        self._timers.append(timer)


_request: _StopRequest | None = None  # while this process handles the signals


def stop_on_signals() -> None:
    """Handle the signals of a command until it ends, as in a block of ``interruptible``; call it on the main thread."""
    global _request
    _request = _request or _StopRequest(is_command=True)
    _set_handlers(_request, [])


def stop_requested(wait_s: float = 0.0) -> bool:
    """Return whether this process has been asked to stop, or is within ``wait_s``; any thread may call this."""
    return _request is not None and _request.received(wait_s)


def discard_lost_output() -> None:
    """Discard what is printed to a closed terminal or to a program that has ended; writing there would raise."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)  # errors alone
    for descriptor, _ in poll.poll(0):
        with open(os.devnull, "wb") as null:
            os.dup2(null.fileno(), descriptor)


@contextmanager
def interruptible(
    on_first: Callable[[], None] | None = None, on_overdue: Callable[[], None] | None = None
) -> Iterator[None]:
    """Handle the signals in the block.

    While a service is away, the first signal raises it too: epochs may be waiting for the service.
    Outside the main thread, Python allows no handlers, so signal handling does not change there.

    Args:
        on_first: called at the first signal; the block must then end this process soon. None = the first signal raises
            KeyboardInterrupt too.
        on_overdue: called on a thread before this process, a command, is ended because it does not end by itself.
    """
    global _request
    if not _is_main_thread():
        yield
        return
    is_outermost = _request is None
    request = _request = _request or _StopRequest()
    previous_overdue = request.on_overdue
    request.on_overdue = on_overdue or previous_overdue
    pending = [on_first] if on_first else []
    try:
        with restoring_handlers():
            _set_handlers(request, pending)
            yield
    finally:
        if on_first and not pending:
            request.begin_to_end()
        request.on_overdue = previous_overdue
        if is_outermost:
            _request = None
            request.close()
            resume_waiting()


@contextmanager
def restoring_handlers() -> Iterator[None]:
    """Restore the current signal handlers at the end of the block.

    Ray replaces that of SIGTERM when it starts, Ray Tune that of SIGUSR1.
    """
    before = {number: signal.getsignal(number) for number in _RESTORED}
    try:
        yield
    finally:
        if _is_main_thread():
            for number, handler in before.items():
                if handler is not None:  # else it was not set from Python
                    signal.signal(number, handler)


def _set_handlers(request: _StopRequest, pending: list[Callable[[], None]]) -> None:
    def handle(number: int, frame: FrameType | None) -> None:
        discard_lost_output()
        if request.is_ending:
            return
        was_waiting = stop_waiting()
        if pending and not was_waiting:
            pending.pop()()
            if number != signal.SIGINT:
                request.repeat_later(number)
            return
        request.begin_to_end()
        raise KeyboardInterrupt

    for number in _SIGNALS:
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
