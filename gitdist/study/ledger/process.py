"""Who a process is, told so that a later process of the same host can see that it is gone."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")
_CLOCK_SLACK_S = 1.0  # the system's own note of its boot time moves by a second where its clock is being set


@dataclass(frozen=True)
class ProcessIdentity:
    """A process of a host. Numbers of processes mean something within one boot and one pid namespace only."""

    host: str
    boot: str
    pid_namespace: str | None
    pid: int
    started_s: float  # after the boot: unlike the time of day it stays the same when the clock is set

    @classmethod
    def own(cls) -> Self:
        """Return the identity of this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _boot(), _pid_namespace(), pid, _started_s(psutil.Process(pid)))

    def is_seen_gone(self) -> bool:
        """Tell whether the process is known to have ended; False where that cannot be seen from here."""
        if (self.host, self.boot, self.pid_namespace) != (socket.gethostname(), _boot(), _pid_namespace()):
            return False
        try:
            process = psutil.Process(self.pid)
            if abs(_started_s(process) - self.started_s) > _CLOCK_SLACK_S:
                return True
            return bool(process.status() == psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return not _answers(self.pid)
        except psutil.AccessDenied:
            return False


def _answers(pid: int) -> bool:
    """Ask the kernel itself: /proc may hide the processes of other users."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _started_s(process: psutil.Process) -> float:
    return round(float(process.create_time() - psutil.boot_time()), 2)


def _boot() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else str(psutil.boot_time())


def _pid_namespace() -> str | None:
    return os.readlink(_PID_NAMESPACE) if _PID_NAMESPACE.is_symlink() else None
