"""What a machine tells about itself. Runs here and, sent by value, on nodes that have another gitdist or none.

So it is imported without any other module of gitdist, and what it returns is made of plain values.
"""

import hashlib
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RAY_PORT = "Ray"  # whose the port of Ray's own head is
PACKAGES = ("ray", "torch", "numpy", "optuna", "mlflow")
AUTH_MODE = "RAY_AUTH_MODE"  # "token" where a cluster asks for one
_TORCH_S = 45.0  # to import torch and to find the cards
_APPEARS_S = 3.0  # within which a file written elsewhere must appear
_POLL_S = 0.2
_CLIENT_SERVER = "ray.util.client.server"
_ASK_TORCH = """
import json, torch
names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
print(json.dumps({"cards": names}))
"""


@dataclass(frozen=True, kw_only=True)
class MachineReport:
    """A machine as it sees itself.

    Attributes:
        host: its name.
        versions: of Python, gitdist and ``PACKAGES``; None where it is missing.
        code: hash of gitdist's source files; None where there are none.
        cards: names of the GPUs that torch can use.
        torch_trouble: why torch cannot tell, in one line.
        shared_memory_bytes: size of /dev/shm; None where there is none.
        addresses: of its network interfaces.
        listening: the watched ports that are open: address, port, whose.
        token_file: Ray's token file, where it has one.
        token_readers: who else can read it: "", "its group" or "everybody".
        token_used: whether a Ray started there would ask for it; unless told otherwise, it does.
    """

    host: str
    versions: dict[str, str | None]
    code: str | None
    cards: list[str] = field(default_factory=list)
    torch_trouble: str | None = None
    shared_memory_bytes: int | None = None
    addresses: list[str] = field(default_factory=list)
    listening: list[tuple[str, int, str]] = field(default_factory=list)
    token_file: str | None = None
    token_readers: str = ""
    token_used: bool = False


@dataclass(frozen=True, kw_only=True)
class DirectoryReport:
    """A directory as a machine sees it.

    Attributes:
        trouble: why no file can be written there, in one line.
        free_bytes: what its disk has left for us; None where that cannot be told.
        disk: the type of its file system.
        sees_token: whether the other machine's file is there.
    """

    trouble: str | None = None
    free_bytes: int | None = None
    disk: str | None = None
    sees_token: bool | None = None


class Examiner:
    """The questions as methods, for an actor on a node; every answer is made of plain values."""

    def describe(self, watched: dict[int, str]) -> dict[str, Any]:
        """Return the fields of a ``MachineReport``; ``watched`` says whose each port is."""
        return asdict(describe(watched, all_cards=True))

    def directory(self, path: str, token: str, own: str) -> dict[str, Any]:
        """Return the fields of a ``DirectoryReport``, leaving the token ``own`` there and looking for ``token``."""
        return asdict(examine_directory(Path(path), token, own))

    def remove(self, path: str, own: str) -> None:
        """Delete the token that ``directory`` left."""
        remove_token(Path(path), own)

    def place(self, uri: str, token: str) -> str | None:
        """Return why a shared store cannot be used from here, or lacks the token; None where all is well."""
        tree = importlib.import_module("gitdist.store.file_tree").FileTree.of_uri(uri)
        return None if tree.read(token) is not None else "a file that was written from elsewhere is not there"

    def now(self) -> float:
        """Return the time of day here, in seconds."""
        return time.time()


def describe(watched: dict[int, str], *, all_cards: bool = False) -> MachineReport:
    """Return what this machine tells.

    Args:
        watched: whose each port is whose binding is asked for.
        all_cards: the node's GPUs, not this process's: from a worker without a share of one, Ray hides them all.
    """
    cards, trouble = _ask_torch(all_cards)
    gitdist, code = _gitdist()
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    versions = {"python": platform.python_version(), "gitdist": gitdist}
    return MachineReport(
        host=socket.gethostname(),
        versions=versions | {name: _version(name) for name in PACKAGES},
        code=code,
        cards=cards,
        torch_trouble=trouble,
        shared_memory_bytes=_or_none(lambda: shutil.disk_usage("/dev/shm").total),
        addresses=_or_none(_addresses) or [],
        listening=_or_none(lambda: _listening(watched)) or [],
        token_file=str(token) if token.is_file() else None,
        token_readers=_or_none(lambda: _readers(token)) or "",
        token_used=os.environ.get(AUTH_MODE, "").lower() != "disabled",
    )


def examine_directory(path: Path, token: str | None, own: str) -> DirectoryReport:
    """Leave a token in a directory and look for the other machine's.

    Args:
        path: the directory, which is there.
        token: name of the file that must be seen; None = none.
        own: name of the file that is written, and left for others to see.
    """
    try:
        (path / own).write_text(own)
        trouble = None
    except OSError as error:
        trouble = f"{path}: {error.strerror or error}"
    return DirectoryReport(
        trouble=trouble,
        free_bytes=_or_none(lambda: shutil.disk_usage(path).free),
        disk=_or_none(lambda: type_of_disk(path)),
        sees_token=None if token is None else sees_token(path, token),
    )


def sees_token(path: Path, token: str) -> bool:
    """Tell whether another machine's token is in a directory; it may take a moment to appear."""
    deadline = time.monotonic() + _APPEARS_S
    while True:
        with suppress(OSError):
            if (path / token).read_text() == token:
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)


def type_of_disk(path: Path) -> str | None:
    """Return the type of the file system that is mounted at ``path`` or at the nearest directory above it."""
    best: tuple[int, str | None] = (-1, None)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        point = point.replace("\\040", " ")
        if path.resolve().is_relative_to(point) and len(point) >= best[0]:
            best = (len(point), kind)
    return best[1]


def remove_token(path: Path, token: str) -> None:
    """Delete a token if it is there."""
    with suppress(OSError):
        (path / token).unlink()


def _or_none(question: Callable[[], Any]) -> Any:
    """Return an answer; None where the machine cannot give it."""
    try:
        return question()
    except Exception:  # of libraries that may be missing there, or forbidden to look
        return None


def _version(package: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _gitdist() -> tuple[str | None, str | None]:
    """Return gitdist's version and the hash of its files, of what is imported here; its metadata may be another's."""
    try:
        package = importlib.import_module("gitdist")
    except ImportError:
        return None, None
    digest = hashlib.sha256()
    root = Path(package.__file__ or "").parent
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root)}:".encode() + file.read_bytes())
    return getattr(package, "__version__", None), digest.hexdigest()[:10]


def _ask_torch(all_cards: bool) -> tuple[list[str], str | None]:
    """Return the cards that a process of its own sees."""
    hidden = ("CUDA_VISIBLE_DEVICES",) if all_cards else ()
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-c", _ASK_TORCH]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TORCH_S, check=False)
    except subprocess.TimeoutExpired:
        return [], f"torch does not answer within {_TORCH_S:g} s"
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    last = lines[-1] if lines else f"torch ends with code {done.returncode}"
    return ([], last) if done.returncode else (json.loads(last)["cards"], None)


def _addresses() -> list[str]:
    psutil: Any = importlib.import_module("psutil")  # Ray brings its own where there is none
    families = (socket.AF_INET, socket.AF_INET6)
    found = [entry for entries in psutil.net_if_addrs().values() for entry in entries if entry.family in families]
    return [entry.address.partition("%")[0] for entry in found]


def _listening(watched: dict[int, str]) -> list[tuple[str, int, str]]:
    psutil: Any = importlib.import_module("psutil")
    found = []
    for connection in psutil.net_connections("tcp"):
        if connection.status != psutil.CONN_LISTEN:
            continue
        owner = watched.get(connection.laddr.port)
        if owner is None and connection.pid is not None:
            command = _or_none(psutil.Process(connection.pid).cmdline) or []
            owner = "Ray client server" if any(_CLIENT_SERVER in part for part in command) else None
        if owner is not None:
            found.append((connection.laddr.ip, connection.laddr.port, owner))
    return found


def _readers(path: Path) -> str:
    """Return who can read a file beside its owner: a closed directory above it keeps others out too."""
    above = [parent.stat().st_mode for parent in path.absolute().parents]
    mode = path.stat().st_mode
    if mode & 0o004 and all(parent & 0o001 for parent in above):
        return "everybody"
    return "its group" if mode & 0o040 and all(parent & 0o011 for parent in above) else ""
