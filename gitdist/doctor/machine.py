"""What a machine reports about itself, here and on nodes.

Nodes receive this module and ``limits`` by value, because their gitdist may be another one or missing: so it imports
the rest of gitdist in functions only, and what a node returns is made of plain values.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gitdist.disk import real_path
from gitdist.limits import (
    allotted_cpus,
    allotted_memory,
    home_error,
    max_open_files,
    nearest_existing,
    spare_processes,
    temporary_directory,
    temporary_error,
)

PACKAGES = ("ray", "torch", "numpy", "optuna", "mlflow")
_TORCH_S = 45.0  # to import torch and to find the GPUs
_APPEARS_S = 3.0  # within which a file written elsewhere must appear
_POLL_S = 0.2
_ASK_TORCH = """
import json, torch
print(json.dumps([torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]))
"""


@dataclass(frozen=True, kw_only=True)
class MachineReport:
    """A machine as it sees itself."""

    versions: dict[str, str | None]  # of Python, gitdist and ``PACKAGES``; None = missing
    code: str | None  # hash of gitdist's source files
    gpus: list[str]  # names of the GPUs that torch can use
    gpu_error: str | None  # why torch cannot say
    cpus: int  # of the machine
    allotted_cpus: float  # that affinity and control group leave
    open_files: int  # that a process may have
    memory_bytes: int  # of the machine, or as many as the control group leaves
    spare_processes: int | None  # processes and threads that may still be started; None = no limit
    shared_memory_bytes: int | None  # size of /dev/shm
    shared_memory_free: int | None  # of it
    home_error: str | None  # why Ray cannot start here with this home directory
    temporary: str  # directory of Ray's logs, sockets and spilled objects
    temporary_error: str | None  # why Ray cannot use it
    temporary_free: float | None  # part of its disk, 0..1


@dataclass(frozen=True, kw_only=True)
class DirectoryReport:
    """A directory as a machine sees it."""

    error: str | None = None  # why no file can be written there
    free_bytes: int | None = None  # of its disk
    file_system: str | None = None
    sees_token: bool | None = None  # whether a file written on another machine is there; None = not asked


def describe_machine(all_gpus: bool) -> dict[str, Any]:
    """Return the fields of a ``MachineReport``."""
    gpus, gpu_error = _ask_torch(all_gpus)
    gitdist, code = _gitdist()
    unusable, temporary = temporary_error(), temporary_directory()
    disk = _or_none(lambda: shutil.disk_usage(nearest_existing(temporary)))
    report = MachineReport(
        versions={
            "python": platform.python_version(),
            "gitdist": gitdist,
            **{name: _or_none(partial(importlib.metadata.version, name)) for name in PACKAGES},
        },
        code=code,
        gpus=gpus,
        gpu_error=gpu_error,
        cpus=os.cpu_count() or 1,
        allotted_cpus=allotted_cpus(),
        open_files=max_open_files(),
        spare_processes=spare_processes(),
        memory_bytes=allotted_memory(),
        shared_memory_bytes=_or_none(lambda: shutil.disk_usage("/dev/shm").total),
        shared_memory_free=_or_none(lambda: shutil.disk_usage("/dev/shm").free),
        home_error=home_error(),
        temporary=str(temporary),
        temporary_error=unusable,
        temporary_free=disk.free / disk.total if disk and disk.total else None,
    )
    return asdict(report)


def describe_directory(path: str, token: str | None) -> dict[str, Any]:
    """Return the fields of a ``DirectoryReport``, writing a file there and looking for the file named ``token``."""
    error = None
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"gitdist doctor")
    except OSError as failure:
        error = f"{path}: {failure.strerror or failure}"
    report = DirectoryReport(
        error=error,
        free_bytes=_or_none(lambda: shutil.disk_usage(path).free),
        file_system=_or_none(lambda: file_system_of(Path(path))),
        sees_token=None if token is None else _appears(Path(path) / token),
    )
    return asdict(report)


def read_place(uri: str, token: str) -> str | None:
    """Return why a place of artifacts cannot be used from here, or lacks the token; None if it can."""
    from gitdist.store.file_tree import FileTree

    found = FileTree.of_uri(uri).read(token)
    return None if found is not None else "a file that was written from elsewhere is not there"


def file_system_of(path: Path) -> str | None:
    """Return the type of the file system that is mounted at ``path`` or at the nearest directory above it."""
    best: tuple[int, str | None] = (-1, None)
    path = real_path(path)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        point = point.replace("\\040", " ")
        if path.is_relative_to(point) and len(point) >= best[0]:
            best = (len(point), kind)
    return best[1]


def _appears(file: Path) -> bool:
    deadline = time.monotonic() + _APPEARS_S
    while not (is_there := file.exists()) and time.monotonic() <= deadline:
        time.sleep(_POLL_S)
    return is_there


def _or_none(question: Callable[[], Any]) -> Any:
    """Return an answer; None if the machine cannot give it, or lacks the package that is asked about."""
    try:
        return question()
    except (OSError, importlib.metadata.PackageNotFoundError):
        return None


def _gitdist() -> tuple[str | None, str | None]:
    """Return the version of the gitdist that is imported here, and the hash of its files."""
    try:
        import gitdist
    except ImportError:
        return None, None
    digest, root = hashlib.sha256(), Path(gitdist.__file__).parent
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}:".encode() + file.read_bytes())
    return gitdist.__version__, digest.hexdigest()[:10]


def _ask_torch(all_gpus: bool) -> tuple[list[str], str | None]:
    """Return the GPUs that a new process sees, or why it cannot say."""
    hidden = ("CUDA_VISIBLE_DEVICES",) if all_gpus else ()
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-P", "-c", _ASK_TORCH]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TORCH_S, check=False)
    except subprocess.TimeoutExpired:
        return [], f"torch does not answer within {_TORCH_S:g} s"
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    last = lines[-1] if lines else f"torch ends with code {done.returncode}"
    return ([], last) if done.returncode else (json.loads(last), None)
