"""Notices that the Ray under the driver has died: the one of this machine, or the head of a cluster that was joined.

Without its control process Ray blocks every call of the driver for a minute and then ends the process without a word.
So a thread looks once a second: at the central processes of a Ray that was started here, which do not come back; at the
port of a cluster's control process, which whoever keeps the cluster may start again within half of that minute.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

_CENTRAL = ("gcs_server", "raylet")
_LOOK_S = 1.0
_END_S = 5.0  # for the processes that outlived the central ones
_CONNECT_S = 5.0
_SILENCE_S = 30.0  # of a cluster's control process, after which it is taken for dead


@contextmanager
def watched(on_death: Callable[[], None], cluster: str | None = None) -> Iterator[None]:
    """Call ``on_death`` on a thread when the Ray that this process uses has died.

    What is left of a Ray that this process started is ended before.

    Args:
        on_death: called once; the main thread may be blocked for good by then, so it should end the process.
        cluster: where the control process of a cluster listens that was joined, ``HOST:PORT``; None = this process
            started Ray.
    """
    done = threading.Event()
    lives = _lives_here() if cluster is None else _lives_there(cluster)

    def watch() -> None:
        while not done.wait(_LOOK_S):
            if not lives() and not done.is_set():
                if cluster is None:
                    _end_rest()
                on_death()
                return

    thread = threading.Thread(target=watch, name="gitdist-watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


def answers(address: str) -> None:
    """Return if something listens at ``HOST:PORT``.

    Raises:
        OSError: nothing does, for a few seconds.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=_CONNECT_S).close()


def _lives_here() -> Callable[[], bool]:
    central = [process for process in _offspring() if _is_central(process)]
    return lambda: all(map(_lives, central))


def _lives_there(address: str) -> Callable[[], bool]:
    last_answer = time.monotonic()

    def lives() -> bool:
        nonlocal last_answer
        asked = time.monotonic()
        with suppress(OSError):
            answers(address)
            last_answer = time.monotonic()
        return asked - last_answer < _SILENCE_S

    return lives


def _end_rest() -> None:
    rest = []
    for process in _offspring():
        with suppress(psutil.NoSuchProcess):
            if "ray" in " ".join(process.cmdline()):
                process.kill()
                rest.append(process)
    psutil.wait_procs(rest, timeout=_END_S)


def _offspring() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if _lives(child)]


def _is_central(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.name() in _CENTRAL
    return False


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
