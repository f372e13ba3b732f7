"""Detects that the driver's Ray has died: the Ray started on this machine, or the head of the joined cluster.

Without its control process Ray blocks every call of the driver for a minute and then exits the process silently. A
thread checks once a second: the central processes and the socket of a Ray started here, which are never restarted or
made again, or the port of the cluster's control process, which may be restarted within 30 seconds.
"""

import ctypes
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import ray

from gitdist.errors import RayUnavailableError

_KILLED = "killed, or out of memory"
_CENTRAL_PROCESSES = ("gcs_server", "raylet")
_CHECK_S = 1.0
_GRACE_S = 1.0  # if all processes of a job are stopped at once, this one's signal may arrive last
_EXIT_TIMEOUT_S = 5.0  # for killed processes to exit
_CONNECT_TIMEOUT_S = 5.0
_MAX_SILENCE_S = 30.0  # after which a cluster's control process counts as dead
_INTERRUPT_S = 10.0  # between two interruptions of a block: its cleanup may use Ray too
_WAKING = signal.SIGURG  # has no meaning for other code, and is ignored by default


@contextmanager
def watched(
    on_death: Callable[[str], None], cluster: str | None = None, *, kill_remaining: bool = True
) -> Iterator[None]:
    """Call ``on_death`` on a thread when the Ray that this process uses has died.

    Args:
        on_death: called once, with the cause; the main thread may be blocked forever, so it should exit the process.
        cluster: ``HOST:PORT`` of the joined cluster's control process; None = this process started Ray.
        kill_remaining: kill the remaining processes of a Ray that this process started first.
    """
    done = threading.Event()
    find_cause = _local_check() if cluster is None else _remote_check(cluster)

    def watch() -> None:
        while not done.wait(_CHECK_S):
            cause = find_cause()
            if cause is not None and not done.wait(_GRACE_S):
                if cluster is None and kill_remaining:
                    _kill_remaining()
                on_death(cause)
                return

    thread = threading.Thread(target=watch, name="gitdist-watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


@contextmanager
def raising_death(cluster: str | None = None) -> Iterator[None]:
    """Raise in the block, on its thread, when the Ray that this process uses has died; for ``cluster`` see ``watched``.

    On the main thread a signal ends the wait for Ray; on another thread the error comes when Ray returns. If Ray's
    control process has died, the thread may wait for that where no signal ends it, and then Ray exits the process.

    Raises:
        RayUnavailableError: Ray has died.
    """
    thread, lock, left = threading.get_ident(), threading.Lock(), threading.Event()
    is_main = threading.current_thread() is threading.main_thread()
    causes: list[str] = []

    def interrupt(cause: str) -> None:
        causes.append(cause)
        while not left.is_set():
            with lock:
                if not left.is_set():
                    _raise_in(thread, _RayDied)
                    if is_main:
                        signal.pthread_kill(thread, _WAKING)
            left.wait(_INTERRUPT_S)

    previous = signal.signal(_WAKING, lambda number, frame: None) if is_main else None
    try:
        with watched(interrupt, cluster, kill_remaining=False):
            yield
    except (_RayDied, Exception) as error:
        if not causes:
            raise
        raise RayUnavailableError(f"Ray has died ({causes[0]}); run the study again, which resumes it") from error
    finally:
        with lock:
            left.set()
            _raise_in(thread, None)
        if is_main:
            signal.signal(_WAKING, previous or signal.SIG_DFL)  # None: it was not set from Python


class _RayDied(BaseException):
    """Not an Exception, which the interrupted code may handle."""


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an exception in a thread when it next runs Python code; None = cancel one that is still to be raised."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)


def check_port(address: str) -> None:
    """Check that a process listens at ``HOST:PORT``."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _local_check() -> Callable[[], str | None]:
    """Return the function that returns why Ray is dead; None while it is alive."""
    central = [process for process in _descendants() if _is_central(process)]
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    socket_file = Path(node["RayletSocketName"])

    def find_cause() -> str | None:
        removed = not socket_file.exists()  # no worker can start any more
        if removed:
            time.sleep(_CHECK_S)  # a raylet that ends removes it too
        if not all(map(_is_running, central)):
            return _KILLED
        directory = socket_file.parents[2]
        remedy = "exclude them from clean-ups, or name another directory in RAY_TMPDIR"
        return f"its files in {directory} were removed: {remedy}" if removed else None

    return find_cause


def _remote_check(address: str) -> Callable[[], str | None]:
    last_answer_at = time.monotonic()

    def find_cause() -> str | None:
        nonlocal last_answer_at
        started_at = time.monotonic()
        with suppress(OSError):
            check_port(address)
            last_answer_at = time.monotonic()
        return None if started_at - last_answer_at < _MAX_SILENCE_S else _KILLED

    return find_cause


def _kill_remaining() -> None:
    remaining = []
    for process in _descendants():
        with suppress(psutil.NoSuchProcess):
            if "ray" in " ".join(process.cmdline()):
                process.kill()
                remaining.append(process)
    psutil.wait_procs(remaining, timeout=_EXIT_TIMEOUT_S)


def _descendants() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if _is_running(child)]


def _is_central(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name() in _CENTRAL_PROCESSES
    return False


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
