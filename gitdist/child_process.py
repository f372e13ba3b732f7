"""Runs functions in a child process, so that code of other packages can exit, block, crash or print there.

    parent: call(function, arguments) --socket--> child: reader thread --queue--> main thread runs the function
            result or error           <--socket--
            the last of its output    <--pipe----  stdout and stderr

The child ends with its parent: the reader thread sees the end of the socket even while the main thread is blocked.
"""

import importlib
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Self

from gitdist.errors import GitdistError, first_line

_SLOW_S = 10.0  # after which the parent logs that a call is slow; again after twice the time, at most a minute later
_MAX_PAUSE_S = 60.0
_POLL_S = 0.1
_TAIL_BYTES = 2000  # kept of the output
_LAST_OUTPUT_S = 1.0  # for the output of a child that has ended to arrive
_LAST_CHARACTERS = 200
_MAIN = "import sys; sys.path[:] = sys.argv[2:]; from gitdist.child_process import serve; serve(int(sys.argv[1]))"

_log = logging.getLogger(__name__)


class ChildEndedError(Exception):
    """A function has ended its process; the message says how: "it ended its process with exit code 0"."""


class ChildProcess:
    """A child process that runs one function after another; a context manager that ends it."""

    def __init__(self, module: str) -> None:
        """Describe the process; entering the block starts it, and returns when it has imported ``module``."""
        self._module = module
        self._output = b""

    def __enter__(self) -> Self:
        """Start the process.

        Raises:
            OSError: it cannot be started.
            ChildEndedError: importing the module has ended it.
        """
        self._connection, theirs = Pipe()
        with theirs:
            descriptor = theirs.fileno()
            # -P: a file in the working directory must not hide a library.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _MAIN, str(descriptor), *sys.path],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        self._reader = threading.Thread(target=self._read_output, name="gitdist-child-output", daemon=True)
        self._reader.start()
        try:
            self._call(lambda waited_s: None, _import, self._module)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._reader.join(_LAST_OUTPUT_S)  # a process that the child has started may keep its end open

    def call(self, task: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what a function of a module returns in the child, or raise the GitdistError that it raises.

        While it takes long, a line is logged from time to time. ``task`` is its first part: what the function must do.

        Raises:
            ChildEndedError: it ended the process.
        """

        def warn(waited_s: float) -> None:
            _log.warning("%s, but has not for %.0f s; press Ctrl-C to stop", task, waited_s)

        return self._call(warn, function, *arguments)

    def _call(self, on_slow: Callable[[float], None], function: Callable[..., Any], *arguments: Any) -> Any:
        with suppress(BrokenPipeError):  # the end of the process is reported below
            self._connection.send_bytes(pickle.dumps((function, arguments)))
        started, slow_s = time.monotonic(), _SLOW_S
        while not self._connection.poll(_POLL_S):
            if self._process.poll() is not None and not self._connection.poll():
                raise self._ended()
            waited_s = time.monotonic() - started
            if waited_s >= slow_s:
                on_slow(waited_s)
                slow_s = min(2 * slow_s, slow_s + _MAX_PAUSE_S)
        try:
            error, result = pickle.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError):
            raise self._ended() from None
        if error is not None:
            raise error
        return result

    def _ended(self) -> ChildEndedError:
        try:
            code = self._process.wait(_LAST_OUTPUT_S)
        except subprocess.TimeoutExpired:
            return ChildEndedError("it closed the files of its process")
        end = f"ended its process with exit code {code}" if code >= 0 else f"was killed by {_signal_name(-code)}"
        self._reader.join(_LAST_OUTPUT_S)
        lines = [line.strip() for line in self._output.decode(errors="replace").splitlines() if line.strip()]
        said = f" after printing '{lines[-1][-_LAST_CHARACTERS:]}'" if lines else ""
        return ChildEndedError(f"it {end}{said}")

    def _read_output(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            while read := os.read(output.fileno(), 1 << 16):
                self._output = (self._output + read)[-_TAIL_BYTES:]


def serve(descriptor: int) -> None:
    """Run the functions that arrive at a socket until the parent ends: the main function of the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this process
    connection, own_pid = Connection(descriptor), os.getpid()
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        with suppress(EOFError, OSError):
            while True:
                calls.put(connection.recv_bytes())
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    while True:
        outcome = _run(calls.get())
        if os.getpid() != own_pid:  # a copy of this process, which the function has forked
            os._exit(0)
        connection.send_bytes(outcome)


def _import(module: str) -> None:
    importlib.import_module(module)


def _run(call: bytes) -> bytes:
    """Return the pickled error, if any, and the result of a call."""
    try:
        function, arguments = pickle.loads(call)
        return pickle.dumps((None, function(*arguments)))
    except BaseException as error:
        if isinstance(error, GitdistError):
            return pickle.dumps((error, None))
        return pickle.dumps((ChildEndedError(f"it raised {type(error).__name__}: {first_line(error)}"), None))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
