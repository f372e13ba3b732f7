"""At most one builder of an artifact, over the processes of all hosts that share a directory or an object store.

    builder A                            claims/                        builder B
    sees no lock file, writes one ---->  kind-key.host.A
    sees its own alone: has the lock
    rewrites it every few seconds ---->  kind-key.host.A  <-----------  sees A's: waits, looks again
    deletes it when done ------------->                   <-----------  sees none, writes its own, ...

Two that write at the same time see each other; both delete their files and try again after random pauses. Writing and
listing are all that this needs, which object stores have too.

Any process that finds a stale lock file deletes it. A lock file is stale if
    it has not changed for ``stale_s``, on the clock of the process that checks;
    or its holder had the file lock (flock) that we have: the kernel frees that when a process of this host dies.
A process that was stopped for long may have lost its lock and continue to build. Then two build, and the first one to
rename its directory wins.
"""

import hashlib
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from gitdist.disk import locked
from gitdist.errors import StoreError
from gitdist.store.artifact import FileStamp
from gitdist.store.file_tree import FileTree
from gitdist.store.layout import LOCK_FILES

STALE_S = 60.0

_BEATS = 6  # in ``stale_s``
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0
_LOOKS = 4  # at an unchanged file before it is stale: an observer that was stopped has not watched
_RANDOM = random.SystemRandom()


class BuildLock:
    """The right to build the artifact that is named like ``path``, which the processes of this host lock."""

    def __init__(self, path: Path, lock_files: "Sequence[LockFiles]") -> None:
        self._path, self._lock_files = path, lock_files
        self._parts = ExitStack()

    def acquire(self, *, blocking: bool = True) -> bool:
        """Acquire the lock, waiting for it if ``blocking``; return whether it is held."""
        pause_s = _FIRST_PAUSE_S
        while not self._try_acquire():
            if not blocking:
                return False
            time.sleep(pause_s * _RANDOM.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return True

    def release(self) -> None:
        """Release the lock if it is held."""
        self._parts.close()

    def _try_acquire(self) -> bool:
        with ExitStack() as parts:
            is_free = parts.enter_context(locked(self._path, blocking=False))
            # If a process of this host has the file lock, it may be stopped; only its lock file shows that.
            host = _host_lock(self._path) if is_free else secrets.token_hex(8)
            if all(parts.enter_context(files.created(self._path.name, host)) for files in self._lock_files):
                self._parts = parts.pop_all()
                return True
        return False


class LockFiles:
    """The lock files in one directory tree, local or on an object store.

    A lock file that has not changed for ``stale_s`` seconds belongs to a dead process.
    """

    def __init__(self, tree: FileTree, stale_s: float = STALE_S) -> None:
        self._tree, self._stale_s = tree, stale_s
        self._watched: dict[str, tuple[FileStamp, float, float]] = {}  # stamp, time of the last look, unchanged for

    @contextmanager
    def created(self, name: str, host: str) -> Iterator[bool]:
        """Have a lock file for ``name`` during the block if nobody else has one; yield whether it is the only one."""
        if self._others(name, host):
            yield False
            return
        # Host names and process ids identify nobody: containers of several hosts have the same ones.
        own = f"{name}.{host}.{secrets.token_hex(8)}"
        try:
            with heartbeat(lambda: self._rewrite(own), self._stale_s / _BEATS):
                self._write(own)
                yield not self._others(name, host, own)
        finally:
            with suppress(OSError, StoreError):  # a file that stays becomes stale
                self._tree.delete(f"{LOCK_FILES}/{own}")

    def is_stale(self, file: str, stamp: FileStamp, now: float) -> bool:
        """Record a look at a lock file at the monotonic time ``now``; return whether it is unchanged for too long."""
        last_stamp, looked_at, unchanged_s = self._watched.get(file, (None, now, 0.0))
        unchanged_s = unchanged_s + min(now - looked_at, self._stale_s / _LOOKS) if stamp == last_stamp else 0.0
        self._watched[file] = stamp, now, unchanged_s
        return unchanged_s >= self._stale_s

    def _others(self, name: str, host: str, own: str = "") -> list[str]:
        """Return the lock files of other living processes; delete those of dead ones."""
        living = []
        for file, stamp in self._tree.files(LOCK_FILES).items():
            if file.startswith(f"{name}.") and file != own:
                if file.startswith(f"{name}.{host}.") or self.is_stale(file, stamp, time.monotonic()):
                    self._tree.delete(f"{LOCK_FILES}/{file}")
                else:
                    living.append(file)
        return living

    def _write(self, file: str) -> None:
        content = f"{socket.gethostname()} process {os.getpid()} was alive at {time.time():.3f}\n"  # for people
        try:
            self._tree.write(f"{LOCK_FILES}/{file}", content.encode())
        except OSError:  # a full disk takes an empty file
            self._tree.write(f"{LOCK_FILES}/{file}", b"")

    def _rewrite(self, file: str) -> None:
        if self._tree.read(f"{LOCK_FILES}/{file}") is not None:  # else another process took this one for dead
            self._write(file)


@contextmanager
def heartbeat(beat: Callable[[], None], interval_s: float) -> Iterator[None]:
    """Call ``beat`` every ``interval_s`` seconds on a thread during the block; a beat that fails is left out."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(interval_s):
            with suppress(OSError, StoreError):
                beat()

    thread = threading.Thread(target=run, name="store-heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        if thread is not threading.current_thread():  # a generator that is garbage collected is closed on any thread
            thread.join()


def _host_lock(path: Path) -> str:
    """Return a name that only this file's lock on this host has, until the host restarts."""
    status = path.stat()
    text = f"{_boot_id()}:{status.st_dev}:{status.st_ino}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return secrets.token_hex(16)
