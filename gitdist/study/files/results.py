"""The files of studies, in a directory or below a prefix on an object store.

The files on an object store are authoritative; every process works on its own copy of them:

    driver  -- study.yaml, identity, campaign.yaml, usage, samples, monitor log, summary --> PREFIX/STUDY/...
    worker  -- attempt; after an epoch its checkpoint, then its row -------------------> PREFIX/STUDY/trials/0007/...
    worker <-- its trial's files, when an attempt begins ------------------------------
    driver, status, sync, report <-- newer and missing files, no checkpoints ----------
    all     <-- artifacts by kind and key: this machine's store ----------------------> PREFIX/store/...

Each copy belongs to one process, so a pull never removes what another process has not pushed yet. Only the store of
artifacts, which never change, is shared on a machine. Pushes are atomic: a kill leaves the old file or the new one. A
trial whose rows are behind its checkpoint resumes from the checkpoint. The next process that makes a copy removes the
copies of killed processes.

    HOME/store/                artifacts of this machine's processes
    HOME/copies/<token>/       one process's copy: STUDY/..., as in a results directory
    HOME/copies/<token>.lock   locked while that process lives
"""

import fcntl
import os
import re
import secrets
import shutil
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO, Literal

from gitdist.address import refuse_secrets
from gitdist.disk import disk_errors, locked, real_path
from gitdist.errors import GitdistError, SpecError, StoreError
from gitdist.input_file import expand_home
from gitdist.store.artifact import FileStamp
from gitdist.store.file_tree import FileTree
from gitdist.store.layout import cache_directory, cached_store

_REMEDY = (
    "provide them on every node by role, profile or environment (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS)"
)
_NUM_FETCHERS = 8  # threads that fetch files
_CHECKPOINT = re.compile(r"epoch-(\d{6,})-[0-9a-f]{32}\.pt")
_ROWS, _ATTEMPT, _REPORT = "rows.jsonl", "attempt", "report"


class Results(ABC):
    """The results of studies as one process accesses them: ``directory`` has one directory per study.

    If all processes share the directory, the methods that copy files do nothing.
    """

    @property
    @abstractmethod
    def directory(self) -> Path:
        """Where this process reads and writes the files."""

    @property
    @abstractmethod
    def store(self) -> Path:
        """The store of artifacts that this machine's processes share."""

    @property
    def uri(self) -> str | None:
        """The object store's URI; None if the results are a directory."""
        return None

    def connect(self) -> None:
        """Check that the object store can be written, read and deleted from."""
        return

    def pull(self, directory: Path, *, checkpoints: bool = False) -> None:
        """Update a directory of the copy: fetch newer and missing files, delete removed ones."""
        return

    def pull_file(self, file: Path) -> None:
        """Update one file of the copy if it exists on the object store."""
        return

    def newest_remote_checkpoint(self, directory: Path) -> int:
        """Return the epoch of a trial's newest checkpoint on the object store at the last pull; 0 without any."""
        return 0

    def read(self, file: Path) -> bytes | None:
        """Return the authoritative content of a file now; None if there is no such file."""
        with suppress(OSError):
            return file.read_bytes()
        return None

    def push(self, *files: Path) -> None:
        """Write the files that have changed since they were last pushed, in the given order."""
        return

    def push_trial(self, directory: Path) -> None:
        """Write a trial's files: new checkpoints, then the others, the rows last; then delete older checkpoints."""
        return

    def remove(self, file: Path) -> None:
        """Remove a file if it exists."""
        file.unlink(missing_ok=True)

    def discard_copy(self, directory: Path) -> None:
        """Remove a trial's directory from the copy only, after this process has finished with it."""
        return

    def describe(self, text: str) -> str:
        """Return a message with the path or URI of the results instead of the copy's path."""
        return text

    @contextmanager
    def rewriting_errors(self) -> Iterator[None]:
        """Make errors raised in the block name the results instead of the copy."""
        yield


class LocalResults(Results):
    """A results directory, which all nodes of a cluster see."""

    def __init__(self, path: Path) -> None:
        """Use the directory at ``path``, which need not exist yet."""
        self._path, self._directory = path, real_path(path)

    def __str__(self) -> str:
        return str(self._path)

    @property
    def directory(self) -> Path:
        """The absolute path."""
        return self._directory

    @property
    def store(self) -> Path:
        """The store in the results directory."""
        return self._directory / "store"


def open_results(results: str | Path) -> Results:
    """Return the results at a path, of which ``~`` is expanded, or at the URI of an object store."""
    uri = str(results)
    return ObjectStoreResults(uri) if "://" in uri else LocalResults(expand_home(results))


class ObjectStoreResults(Results):
    """This process's copy of results on an object store.

    A process that unpickles it creates its own copy. Paths are those of the copy. Methods that use the object store
    wait while it is away, see ``Outage``, and then raise StoreError.
    """

    def __init__(self, uri: str, waits: Literal["connected", "always"] = "connected") -> None:
        """Use the results at ``uri``; the first use creates the copy; for ``waits`` see ``FileTree.of_uri``."""
        refuse_credentials(uri)
        self._uri, self._waits = uri.rstrip("/"), waits
        self._fetched: dict[str, FileStamp] = {}  # remote stamps of the copy's files when they were fetched
        self._pushed: dict[str, FileStamp] = {}  # local stamps when they were fetched or pushed
        self._checkpoints: set[str] = set()  # on the object store, as far as this process knows

    def __reduce__(self) -> tuple[Callable[..., "ObjectStoreResults"], tuple[str, ...]]:
        return ObjectStoreResults, (self._uri, "always")

    def __str__(self) -> str:
        return self._uri

    @property
    def uri(self) -> str:
        """The object store's URI, without a slash at its end."""
        return self._uri

    @cached_property
    def directory(self) -> Path:
        """The copy, laid out as a results directory; removed when this process ends."""
        copies = cache_directory(self.uri) / "copies"
        try:
            with disk_errors(copies):
                copies.mkdir(mode=0o700, parents=True, exist_ok=True)
                with locked(copies / ".sweep"):
                    _remove_dead_copies(copies)
                    directory = copies / secrets.token_hex(8)
                    lock = _lock_copy(directory)
                    directory.mkdir()
        except OSError as error:
            raise StoreError(
                f"copies of {self.uri} must be written to {copies}, but cannot write {error.filename} "
                f"({error.strerror}); set GITDIST_MIRROR to another directory"
            ) from None
        weakref.finalize(self, _remove_copy, directory, lock)
        return directory

    @property
    def store(self) -> Path:
        """The directory of this machine's store of artifacts."""
        return cached_store(self.uri)

    def connect(self) -> None:
        """Check that the object store can be written, read and deleted from; raise at once if not."""
        _ = self._tree

    def pull(self, directory: Path, *, checkpoints: bool = False) -> None:
        """Update a directory of the copy."""
        root = self._name(directory)
        remote = {f"{root}/{name}": stamp for name, stamp in self._tree.files(root).items() if _is_synced(name)}
        self._checkpoints = {name for name in self._checkpoints if not name.startswith(f"{root}/")}
        self._checkpoints |= {name for name in remote if _epoch(name) is not None}
        changed = {
            name: stamp
            for name, stamp in remote.items()
            if (checkpoints or name not in self._checkpoints) and self._fetched.get(name) != stamp
        }
        with ThreadPoolExecutor(_NUM_FETCHERS) as pool:
            for _ in pool.map(self._fetch, changed, changed.values()):
                pass
        known = list(self._fetched)  # another thread may push meanwhile
        for name in [name for name in known if name.startswith(f"{root}/") and name not in remote]:
            self._forget_stamps(name)
            (self.directory / name).unlink(missing_ok=True)

    def pull_file(self, file: Path) -> None:
        """Update one file of the copy."""
        content = self.read(file)
        if content is not None:
            _write(file, content)

    def newest_remote_checkpoint(self, directory: Path) -> int:
        """Return the epoch of a trial's newest checkpoint at the last pull."""
        return max((_epoch(name) or 0 for name in self._checkpoints_in(directory)), default=0)

    def read(self, file: Path) -> bytes | None:
        """Return a file's content on the object store now."""
        return self._tree.read(self._name(file))

    def push(self, *files: Path) -> None:
        """Write the files that have changed since they were last pushed."""
        for file in files:
            name, stamp = self._name(file), _stamp(file)
            if self._pushed.get(name) != stamp:
                self._tree.write(name, file.read_bytes())
                self._pushed[name] = stamp
                self._fetched.pop(name, None)

    def push_trial(self, directory: Path) -> None:
        """Write a trial's files; delete only checkpoints that this process knows and its copy no longer has."""
        files = [file for file in directory.iterdir() if _is_synced(file.name) and file.name != _ATTEMPT]
        local = {self._name(file): file for file in files if _epoch(file.name) is not None}
        remote = self._checkpoints_in(directory)
        rest = sorted((file for file in files if self._name(file) not in local), key=lambda file: file.name == _ROWS)
        self.push(*(local[name] for name in sorted(local.keys() - remote)), *rest)
        self._checkpoints |= local.keys()
        for name in remote - local.keys() if local else ():
            self._tree.delete(name)
            self._checkpoints.discard(name)

    def remove(self, file: Path) -> None:
        """Remove a file from the object store and from the copy."""
        self._tree.delete(self._name(file))
        self._forget_stamps(self._name(file))
        file.unlink(missing_ok=True)

    def discard_copy(self, directory: Path) -> None:
        """Remove a trial's directory from the copy."""
        root = self._name(directory)
        for name in [name for name in self._pushed if name.startswith(f"{root}/")]:
            self._forget_stamps(name)
        shutil.rmtree(directory, ignore_errors=True)

    def describe(self, text: str) -> str:
        """Return a text with the URI of the results instead of the copy's path."""
        return text.replace(str(self.directory), self.uri)

    @contextmanager
    def rewriting_errors(self) -> Iterator[None]:
        """Make errors raised in the block name the URI of the results."""
        try:
            yield
        except GitdistError as error:
            error.args = (self.describe(str(error)),)
            raise

    @cached_property
    def _tree(self) -> FileTree:
        return results_tree(self.uri, waits=self._waits)

    def _fetch(self, name: str, stamp: FileStamp) -> None:
        content = self._tree.read(name)
        if content is not None:
            file = self.directory / name
            _write(file, content, stamp)
            self._fetched[name], self._pushed[name] = stamp, _stamp(file)

    def _forget_stamps(self, name: str) -> None:
        self._fetched.pop(name, None)
        self._pushed.pop(name, None)

    def _checkpoints_in(self, directory: Path) -> set[str]:
        return {name for name in self._checkpoints if name.startswith(f"{self._name(directory)}/")}

    def _name(self, path: Path) -> str:
        return path.relative_to(self.directory).as_posix()


def results_tree(uri: str, *, waits: Literal["never", "connected", "always"] = "never") -> FileTree:
    """Return the files of results on an object store; for ``waits`` and errors see ``FileTree.of_uri``."""
    return FileTree.of_uri(uri, "the results on", "the URI of the results", waits=waits)


def refuse_credentials(uri: str) -> None:
    """Refuse a URI with a password or key: it would be printed, and visible in the process list."""
    try:
        refuse_secrets(uri, _REMEDY)
    except ValueError as error:
        raise SpecError(f"the URI of the results {error}") from None


def _is_synced(name: str) -> bool:
    """Whether a file is pulled and pushed; ``name`` is relative to the directory of a study or trial."""
    return not name.startswith(f"{_REPORT}/") and not any(part.startswith(".") for part in name.split("/"))


def _epoch(name: str) -> int | None:
    match = _CHECKPOINT.fullmatch(name.rpartition("/")[2])
    return int(match[1]) if match else None


def _stamp(file: Path) -> FileStamp:
    status = file.stat()
    return FileStamp(status.st_size, status.st_mtime_ns)


def _write(file: Path, content: bytes, stamp: FileStamp | None = None) -> None:
    """Replace a file of a copy atomically and give it the remote modification time."""
    with disk_errors(file, len(content)):
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}.fetched")
        temporary.write_bytes(content)
        if stamp is not None:
            os.utime(temporary, ns=(stamp.mtime_ns, stamp.mtime_ns))
        temporary.replace(file)


def _lock_copy(directory: Path) -> IO[str]:
    lock = open(_lock_of(directory), "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise
    return lock


def _remove_copy(directory: Path, lock: IO[str]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    _lock_of(directory).unlink(missing_ok=True)
    lock.close()


def _remove_dead_copies(copies: Path) -> None:
    """Remove the copies of killed processes."""
    for directory in [path for path in copies.iterdir() if path.is_dir()]:
        try:
            lock = _lock_copy(directory)
        except BlockingIOError:
            continue
        _remove_copy(directory, lock)


def _lock_of(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.lock")
