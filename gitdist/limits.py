"""What the operating system leaves to this process: CPUs, memory, processes, open files, a temporary directory.

A container or a batch job has less than its machine: by the affinity of its processes, by limits of the user, or by
those of control groups (cgroup v1 and v2).
"""

import os
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

MIN_PROCESSES = 250  # a study of one server and one trial takes 280 processes and threads on two CPUs, Ray alone 130
MIN_OPEN_FILES = 256  # per process; with 64, Ray dies after the first trial

_CGROUPS = Path("/sys/fs/cgroup")
_SOCKET = "/ray/session_2000-01-01_00-00-00_000000_{pid}/sockets/plasma_store"  # Ray's longest, in the directory
_MAX_SOCKET_BYTES = 107  # on Linux
_TOKEN_SETTINGS = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}


def usable_cpus() -> int:
    """Return how many whole CPUs this process may use, at least one."""
    return max(1, int(allotted_cpus()))


def allotted_cpus() -> float:
    """Return how many CPUs affinity and control groups leave to this process; a group may leave parts of one."""
    quotas = [limit.split() for _, limit in _group_limits("cpu", "cpu.max")]
    for group, quota in _group_limits("cpu", "cpu.cfs_quota_us"):
        quotas.append([quota, _read(group / "cpu.cfs_period_us") or "max"])
    limits = [int(quota) / int(period) for quota, period in quotas if quota.isdigit() and period.isdigit()]
    return min([len(os.sched_getaffinity(0)), *limits])


def allotted_memory() -> int:
    """Return how many bytes of memory the machine has, or fewer if a control group leaves fewer."""
    found = [*_group_limits("memory", "memory.max"), *_group_limits("memory", "memory.limit_in_bytes")]
    limits = [int(limit) for _, limit in found if limit.isdigit()]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits])


def spare_processes() -> int | None:
    """Return how many more processes and threads this user and its control groups may start; None = no limit."""
    spare = [
        int(limit) - int(_read(group / "pids.current") or 0)
        for group, limit in _group_limits("pids", "pids.max")
        if limit.isdigit()
    ]
    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if limit != resource.RLIM_INFINITY and os.getuid() != 0:  # which does not hold for root
        spare.append(limit - _num_threads_of_user())
    return max(0, min(spare)) if spare else None


def max_open_files() -> int:
    """Return how many files a process may have open: the hard limit, to which Ray raises the soft one."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


def temporary_directory() -> Path:
    """Return the directory in which Ray makes its own, ``ray``, for logs, sockets and spilled objects."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp").absolute()


def temporary_error() -> str | None:
    """Return why Ray cannot use the temporary directory; None if it can."""
    directory = temporary_directory()
    excess = len(os.fsencode(f"{directory}{_SOCKET.format(pid=os.getpid())}")) - _MAX_SOCKET_BYTES
    if excess > 0:
        return f"the temporary directory {directory} is {excess} characters too long for Ray's sockets"
    reason = _write_error(directory / "ray")
    return reason and f"the temporary directory {directory} cannot be written ({reason})"


def home_error() -> str | None:
    """Return why the home directory cannot hold the token that Ray makes; None if it can, or Ray makes none."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or _TOKEN_SETTINGS & os.environ.keys():
        return None
    token = Path(os.path.expanduser("~/.ray/auth_token"))
    reason = None if token.exists() else _write_error(token.parent)
    return reason and f"the home directory {token.parents[1]} cannot be written ({reason}), where Ray keeps its token"


def nearest_existing(directory: Path) -> Path:
    """Return a directory, or the nearest one above it that exists."""
    return next(path for path in (directory, *directory.parents) if path.exists())


def _write_error(directory: Path) -> str | None:
    try:
        with tempfile.TemporaryFile(dir=nearest_existing(directory)):
            return None
    except OSError as error:
        return error.strerror


def _num_threads_of_user() -> int:
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            if process.stat().st_uid == os.getuid():
                count += len(os.listdir(process / "task"))
    return count


def _group_limits(controller: str, name: str) -> Iterator[tuple[Path, str]]:
    """Yield each control group that this process is in and that has a file ``name``, with the file's content."""
    for line in (_read(Path("/proc/self/cgroup")) or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for mount in {controllers, controller if controllers else "unified"}:  # cgroup v1, else v2
            root = _CGROUPS / mount
            group = root / path.strip("/")
            for directory in (group, *group.parents):
                if directory.is_relative_to(root) and (content := _read(directory / name)):
                    yield directory, content


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
