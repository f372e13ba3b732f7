"""Functions that end, or do not end, as code of other packages may."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

from gitdist.errors import SpecError


def pid() -> int:
    return os.getpid()


def leave(code: int, said: str = "") -> NoReturn:
    print(said, flush=True)
    os._exit(code)


def call_exit(value: object) -> NoReturn:
    sys.exit(value)


def kill_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def raise_odd() -> NoReturn:
    class OddError(BaseException):
        def __str__(self) -> str:
            return "odd\nand more"

    raise OddError


def refuse() -> NoReturn:
    raise SpecError("trial.lr must be positive", remedy="fork", name="x")


def print_much(num_bytes: int) -> int:
    for _ in range(num_bytes // 100):
        print("x" * 99)
    return num_bytes


def fork() -> int:
    """Return in two processes, of which one has a copy of all that belongs to the other."""
    os.fork()
    return os.getpid()


def exit_on_a_thread() -> str:
    thread = threading.Thread(target=sys.exit, args=[None])
    thread.start()
    thread.join()
    return "still here"


def close_files() -> None:
    os.closerange(0, 4096)  # the tests' process may have many files open, and its child such numbers


def wait_for(file: Path) -> str:
    while not file.exists():
        time.sleep(0.01)
    return "there"


def leave_pid_and_block(file: Path) -> None:
    file.with_suffix(".new").write_text(str(os.getpid()))
    file.with_suffix(".new").rename(file)
    time.sleep(600)
