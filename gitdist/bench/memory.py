"""The memory of a command with all its processes: the sum of their proportional set sizes, sampled once a second."""

import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from gitdist.errors import StudyError

_EVERY_S = 1.0
_PATIENCE_S = (1.0, 20.0)  # with a command after each signal that ends it
_TOLD = 300  # characters of a failed command's last words


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A command that has ended: the most bytes its processes held together at any sample; None = there is none."""

    peak_bytes: int | None


def run_watched(command: Sequence[str], environment: Mapping[str, str]) -> Finished:
    """Run a command to its end and watch its memory.

    Pages that several processes map are counted once: each has its share of them (PSS, Linux).

    Raises:
        StudyError: the command failed; its last words are in the message.
    """
    process = subprocess.Popen(
        command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    watch = _Watch(process.pid)
    watch.start()
    try:
        output, _ = process.communicate()
    except BaseException:
        _end(process)
        raise
    finally:
        watch.end()
    if process.returncode:
        told = " ".join(output.split())[-_TOLD:]
        raise StudyError(f"a benchmark's command must succeed, but `{' '.join(command)}` failed: {told}")
    return Finished(peak_bytes=watch.peak_bytes or None)


def _end(process: subprocess.Popen[str]) -> None:
    """End a command; the first signal ends a study after its present epoch, the second at once."""
    try:
        for patience_s in _PATIENCE_S:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience_s)
                return
    finally:
        process.kill()
        process.wait()


class _Watch(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self._pid, self._ended = pid, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            with suppress(psutil.Error, AttributeError):  # there is no such figure but on Linux
                self.peak_bytes = max(self.peak_bytes, tree_bytes(self._pid))

    def end(self) -> None:
        self._ended.set()
        self.join()


def tree_bytes(pid: int) -> int:
    """Return the proportional set size of a process and all that descend from it, in bytes."""
    root = psutil.Process(pid)
    total = 0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.Error):  # it ended meanwhile
            total += process.memory_full_info().pss
    return total
