"""Notices that the Ray of this machine has died under the driver.

Without its control process Ray blocks every call of the driver for a minute and then ends the process without a word.
So a thread looks at Ray's two central processes once a second, and says it at once.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil

_CENTRAL = ("gcs_server", "raylet")
_LOOK_S = 1.0
_END_S = 5.0  # for the processes that outlived the central ones


@contextmanager
def watched(on_death: Callable[[], None]) -> Iterator[None]:
    """Call ``on_death`` on a thread when a central process of the Ray that this process started has died.

    What is left of Ray is ended before.

    Args:
        on_death: called once; the main thread may be blocked for good by then, so it should end the process.
    """
    central = [process for process in _offspring() if _is_central(process)]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_S):
            if not all(map(_lives, central)) and not done.is_set():
                _end_rest()
                on_death()
                return

    thread = threading.Thread(target=watch, name="gitdist-watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()


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
