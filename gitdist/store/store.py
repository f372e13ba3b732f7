"""The store itself: finds artefacts, builds what is missing, pins what studies use and limits the size."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from gitdist.address import without_secrets
from gitdist.disk import disk_errors, fsync
from gitdist.errors import StoreError
from gitdist.store.artefact import ArtefactId, FileStamp, content_key, is_intact, seal, stamps
from gitdist.store.file_tree import FileTree
from gitdist.store.gc import evict
from gitdist.store.layout import StoreLayout, cached_store
from gitdist.store.locks import STALE_S, BuildLock, LockFiles, heartbeat
from gitdist.store.pins import RENEW_S, Pin
from gitdist.store.shared import SharedStore, shared_tree

Build = Callable[[Path, Path], None]

_MARK_S = 60.0  # between two marks of one artefact's use


class Artefact:
    """What ``Store.lock`` yields: an artefact, or the right to build it.

    Attributes:
        path: its directory; None while it has to be built.
        scratch: a directory for checkpoints, which a killed builder leaves to the next one.
    """

    def __init__(self, path: Path | None, scratch: Path, publish: Callable[[Callable[[Path], None]], Path]) -> None:
        self.path, self.scratch, self._publish = path, scratch, publish

    def publish(self, build: Callable[[Path], None]) -> Path:
        """Have ``build(target)`` write files into an empty directory, make it the artefact and release the lock.

        Raises:
            DiskError: the disk does not take it; the scratch is kept.
            StoreError: the shared store does not take it; the artefact is in place in this store.
        """
        assert self.path is None, f"{self.path} exists"
        self.path = self._publish(build)
        return self.path


class Store:
    """Artefacts under one directory, each named by the hash of what determines it.

    Safe for threads, for processes and for hosts that share the directory or the shared store; an artefact never
    changes. A pickled store is opened again where it arrives, without pins.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int | None = None,
        shared: str | None = None,
        stale_s: float = STALE_S,
        results: str | None = None,
    ) -> None:
        """Open the store at ``root`` and create it if it is missing.

        Args:
            root: its directory.
            max_bytes: after a build, the least recently used artefacts without pins are deleted down to this size.
            shared: URI or path of a store that several stores share: artefacts are fetched from it and uploaded to it.
            stale_s: a builder on another host without a sign of life for this long, in seconds, is dead; one value for
                all that share a directory.
            results: URI of the results on an object store that this machine's store is for; unpickled, it is opened
                where the other machine has its own, and the shared store is connected at its first use.

        Raises:
            StoreError: the directory cannot be created or written, or the shared store cannot be reached.
        """
        self.root = Path(root)
        self.max_bytes, self.shared, self.stale_s, self.results = max_bytes, shared, stale_s, results
        self._layout = StoreLayout(self.root)
        self._lock_files = LockFiles(FileTree.local(self.root), stale_s)
        self._verified: dict[ArtefactId, dict[str, FileStamp]] = {}
        self._uploaded: set[ArtefactId] = set()
        self._used: dict[ArtefactId, float] = {}  # when its use was marked, on the monotonic clock
        self._pins: list[Pin] = []
        self._layout.create()
        if results is None:
            _ = self._shared_store  # connect

    def __reduce__(self) -> tuple[Callable[..., "Store"], tuple[object, ...]]:
        return _reopen, (self.root, self.max_bytes, self.shared, self.stale_s, self.results)

    @cached_property
    def _shared_store(self) -> SharedStore | None:
        if self.shared is None:
            return None
        return SharedStore(shared_tree(self.shared, of_results=self.results is not None), self.stale_s)

    def find(self, kind: str, spec: Mapping[str, Any]) -> Path | None:
        """Return the artefact's directory if it is intact, here or in the shared store; None if it has to be built.

        Checksums are compared at the first use and again after a file has changed its size or time.

        Raises:
            StoreError: the shared store cannot be reached.
        """
        return self._find(ArtefactId(kind, content_key(kind, spec)))

    def get_or_build(self, kind: str, spec: Mapping[str, Any], build: Build) -> Path:
        """Return the directory of the artefact that ``spec`` determines; build it if it is missing.

        Args:
            kind: what it is, such as ``"dataset"``; the name of its folder in the store.
            spec: everything that determines it, as JSON values.
            build: ``build(target, scratch)`` writes the artefact's files into the empty directory ``target``; a killed
                build leaves ``scratch``, with its checkpoints, to the next one.

        Raises:
            DiskError: the disk does not take it; ``scratch`` is kept, and nothing unfinished is in place.
            StoreError: the shared store cannot be reached.
        """
        with self.lock(kind, spec, blocking=True) as artefact:
            assert artefact is not None, "it was waited for"
            return artefact.path or artefact.publish(lambda target: build(target, artefact.scratch))

    @contextmanager
    def lock(self, kind: str, spec: Mapping[str, Any], *, blocking: bool) -> Iterator[Artefact | None]:
        """Find an artefact, or have the right to build it until it is published or the block ends.

        For work that yields other results while it builds; else use ``get_or_build``. At most one process over all
        hosts has the right. A block that ends without ``publish`` leaves the scratch to the next process.

        Yields:
            the artefact; None if another process builds it and ``blocking`` is off.

        Raises:
            DiskError: the disk does not take the lock or the scratch.
            StoreError: the shared store cannot be reached.
        """
        artefact = ArtefactId(kind, content_key(kind, spec))
        scratch, lock = self._layout.scratch(artefact), self._build_lock(artefact)

        def publish(build: Callable[[Path], None]) -> Path:
            path = self._publish(artefact, spec, build)
            lock.release()
            self.free_up(0, keep=artefact)
            return path

        found, is_locked = self._find(artefact), False
        try:
            if found is None:
                with disk_errors(self._layout.path(artefact)):
                    is_locked = lock.acquire(blocking=blocking)
                    found = self._find(artefact) if is_locked else None
                    if is_locked and found is None:
                        scratch.mkdir(exist_ok=True)
            if found is not None:
                lock.release()
                self._complete_upload(artefact)  # which its builder may not have finished
            yield Artefact(found, scratch, publish) if found is not None or is_locked else None
        finally:
            lock.release()

    def resolve_locally(self, directory: Path) -> Path:
        """Return this machine's directory of an artefact that another process's store returned; fetch it if needed."""
        if self.results is None:
            return directory
        artefact = ArtefactId(directory.parent.name, directory.name)
        if (found := self._find(artefact)) is None:
            store = without_secrets(self.shared or str(self.root))
            raise StoreError(f"the store {store} has lost its {artefact}; run the same command again, which builds it")
        return found

    @contextmanager
    def pin_used(self, study: str) -> Iterator[None]:
        """Pin every artefact that this store has returned, or returns in the block, for a running study."""
        pin = Pin(self._layout, study)
        self._pins.append(pin)
        try:
            with heartbeat(pin.renew, RENEW_S):
                pin.add(self._used)
                yield
        finally:
            self._pins.remove(pin)
            pin.release()

    def mark_used(self, kind: str, key: str) -> bool:
        """Pin an artefact, which may be a directory that grows, and mark its use; return whether it exists."""
        artefact, now = ArtefactId(kind, key), time.monotonic()
        for pin in self._pins:
            pin.add([artefact])
        if not self._layout.path(artefact).exists():
            return False
        if now - self._used.get(artefact, -_MARK_S) >= _MARK_S:
            self._used[artefact] = now
            with suppress(OSError):  # the disk is full or read-only
                self._layout.last_use(artefact).touch()
        return True

    def free_up(self, num_bytes: int, *, keep: ArtefactId | None = None) -> int:
        """Delete artefacts without pins until ``num_bytes`` more fit; return how many do, 0 or below if none."""
        if self.max_bytes is None:
            return num_bytes
        try:
            _, used_bytes = evict(self._layout, max_bytes=self.max_bytes - num_bytes, keep=keep)
        except OSError:  # something cannot be deleted
            return 0
        return self.max_bytes - used_bytes

    def _build_lock(self, artefact: ArtefactId) -> BuildLock:
        shared = [self._shared_store.lock_files] if self._shared_store else []
        return BuildLock(self._layout.lock(str(artefact)), [self._lock_files, *shared])

    def _find(self, artefact: ArtefactId) -> Path | None:
        while self._is_here(artefact) or self._fetch(artefact):
            if self.mark_used(*artefact):  # else it was deleted just now
                return self._layout.path(artefact)
        return None

    def _is_here(self, artefact: ArtefactId) -> bool:
        path = self._layout.path(artefact)
        now = stamps(path)
        if self._verified.get(artefact) != now:
            self._verified.pop(artefact, None)
            if not is_intact(path, artefact.key):
                return False
            self._verified[artefact] = now
        return True

    def _fetch(self, artefact: ArtefactId) -> bool:
        if self._shared_store is None or not self._shared_store.has(artefact):
            return False
        with disk_errors(self._layout.path(artefact)):
            target = self._layout.new_target(artefact, "fetched-")
            try:
                if not self._shared_store.fetch(artefact, target):
                    return False
                self._rename_into_place(target, artefact)
            finally:
                shutil.rmtree(target, ignore_errors=True)
        self._uploaded.add(artefact)
        self.free_up(0, keep=artefact)
        return self._is_here(artefact)

    def _publish(self, artefact: ArtefactId, spec: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        path, is_shared = self._layout.path(artefact), False
        with disk_errors(path):
            target = self._layout.new_target(artefact)
            try:
                build(target)
                seal(target, artefact.kind, spec)
                try:
                    is_shared = self._fetch(artefact)  # of a builder that took this one for dead
                finally:
                    self._rename_into_place(target, artefact)
            except FileNotFoundError:
                # A builder that took this one for dead has published the artefact and deleted target and scratch.
                if not self._is_here(artefact):
                    raise
            finally:
                shutil.rmtree(target, ignore_errors=True)
            self._verified[artefact] = stamps(path)
            for leftover in (self._layout.scratch(artefact), *self._layout.tmp.glob(f"{artefact}.*")):
                shutil.rmtree(leftover, ignore_errors=True)
            self.mark_used(*artefact)
            if self._shared_store is not None and not is_shared:
                self._shared_store.upload(artefact, path)
                self._uploaded.add(artefact)
        return path

    def _rename_into_place(self, target: Path, artefact: ArtefactId) -> None:
        """Make a sealed directory the artefact unless an intact one is there; move a damaged one aside."""
        path = self._layout.path(artefact)
        path.parent.mkdir(exist_ok=True)
        while True:
            try:
                target.rename(path)
            except OSError:
                if not path.exists():
                    raise
                if is_intact(path, artefact.key):
                    return
                self._layout.move_aside(artefact, "damaged")
            else:
                fsync(path.parent)
                return

    def _complete_upload(self, artefact: ArtefactId) -> None:
        if self._shared_store is None or artefact in self._uploaded:
            return
        lock = self._build_lock(artefact)
        with disk_errors(self._layout.path(artefact)):
            try:
                if not self._shared_store.has(artefact) and lock.acquire() and not self._shared_store.has(artefact):
                    self._shared_store.upload(artefact, self._layout.path(artefact))
            finally:
                lock.release()
        self._uploaded.add(artefact)


def _reopen(root: Path, max_bytes: int | None, shared: str | None, stale_s: float, results: str | None) -> Store:
    root = root if results is None else cached_store(results)
    return Store(root, max_bytes=max_bytes, shared=shared, stale_s=stale_s, results=results)
