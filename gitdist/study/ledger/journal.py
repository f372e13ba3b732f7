"""The ledger as a journal file on a shared disk, safe from writers that were killed.

    writer --host lock (flock, ends with its process)--> --Optuna's lock file--> cut a torn line off --> append

Of one host's processes only the holder of the host lock goes for the lock file. So a lock file that bears this host's
mark was left by a killed writer, and is taken away at once. Other hosts' lock files expire by Optuna's own rule (30 s).
"""

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from optuna.storages.journal import JournalFileSymlinkLock

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")  # of the running kernel; containers of a machine share it
_TAIL = 1 << 16  # bytes read at once while looking for the end of the last whole line


class HostLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal; whoever gets it first cuts off what a killed writer left unfinished."""

    def __init__(self, journal: Path) -> None:
        """Guard the file ``journal``."""
        super().__init__(str(journal))
        self._journal = journal
        self._host = Path(f"{journal}.{_host_mark()}")
        self._lock_target_file = str(self._host)
        self._held: BinaryIO | None = None

    def acquire(self) -> bool:
        """Wait for the lock."""
        self._held = open(self._host, "ab")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX)
            os.utime(self._host)  # other hosts tell by its time whether the lock file is a new one
            if _points_to(self._lock_file, self._lock_target_file):
                os.unlink(self._lock_file)
            super().acquire()
            _cut_torn_line(self._journal)
        except BaseException:
            self._held.close()
            raise
        return True

    def release(self) -> None:
        """Give the lock back.

        Raises:
            OSError: another host took it, since this process did not move for longer than locks last.
        """
        try:
            super().release()
        except RuntimeError as error:
            raise OSError(f"the lock of {self._journal} was lost to another host ({error})") from None
        finally:
            if self._held is not None:
                self._held.close()


def _host_mark() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else os.uname().nodename


def _points_to(link: str, target: str) -> bool:
    try:
        return os.readlink(link) == target
    except FileNotFoundError:
        return False


def _cut_torn_line(path: Path) -> None:
    """Cut the file after its last line end."""
    with open(path, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        keep = end
        while keep > 0:
            start = max(0, keep - _TAIL)
            file.seek(start)
            found = file.read(keep - start).rfind(b"\n")
            if found >= 0:
                keep = start + found + 1
                break
            keep = start
        if keep < end:
            file.truncate(keep)
