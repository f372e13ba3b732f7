"""The store itself: finds artifacts, builds what is missing, pins what studies use and limits the size."""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from gitdist.address import without_secrets
from gitdist.disk import disk_errors, fsync
from gitdist.errors import StoreError
from gitdist.store.artifact import ArtifactId, FileStamp, content_key, is_intact, seal, stamps
from gitdist.store.file_tree import FileTree
from gitdist.store.gc import evict
from gitdist.store.layout import StoreLayout, cached_store
from gitdist.store.locks import STALE_S, BuildLock, LockFiles, heartbeat
from gitdist.store.pins import RENEW_S, Pin
from gitdist.store.shared import SharedStore, shared_tree

Build = Callable[[Path, Path], None]

_MARK_S = 60.0  # between two marks of one artifact's use


class Artifact:
    """What ``Store.lock`` yields: an artifact, or the right to build it.

    Attributes:
        path: its directory; None while it has to be built.
        scratch: a directory for checkpoints, which a killed builder leaves to the next one.
    """

    def __init__(self, path: Path | None, scratch: Path, publish: Callable[[Callable[[Path], None]], Path]) -> None:
        self.path, self.scratch, self._publish = path, scratch, publish

    def publish(self, build: Callable[[Path], None]) -> Path:
        """Have ``build(target)`` write files into an empty directory, make it the artifact and release the lock.

        Raises:
            DiskError: the disk does not take it; the scratch is kept.
            StoreError: the shared store does not take it; the artifact is in place in this store.
        """
        assert self.path is None, f"{self.path} exists"
        self.path = self._publish(build)
        return self.path


class Store:
    """Artifacts under one directory, each named by the hash of what determines it.

    Safe for threads, for processes and for hosts that share the directory or the shared store; an artifact never
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
        waits: Literal["connected", "always"] = "connected",
    ) -> None:
        """Open the store at ``root`` and create it if it is missing.

        Args:
            root: its directory.
            max_bytes: after a build, the least recently used artifacts without pins are deleted down to this size.
            shared: URI or path of a store that several stores share: artifacts are fetched from it and uploaded to it.
            stale_s: a builder on another host without a sign of life for this long, in seconds, is dead; one value for
                all that share a directory.
            results: URI of the results on an object store that this machine's store is for; unpickled, it is opened
                where the other machine has its own, and the shared store is connected at its first use.
            waits: see ``FileTree.of_uri``; a store that is opened again always waits.

        Raises:
            StoreError: the directory cannot be created or written, or the shared store cannot be reached.
        """
        self.root = Path(root)
        self.max_bytes, self.shared, self.stale_s, self.results = max_bytes, shared, stale_s, results
        self._layout = StoreLayout(self.root)
        self._lock_files = LockFiles(FileTree.local(self.root), stale_s)
        self._verified: dict[ArtifactId, dict[str, FileStamp]] = {}
        self._uploaded: set[ArtifactId] = set()
        self._used: dict[ArtifactId, float] = {}  # when its use was marked, on the monotonic clock
        self._pins: list[Pin] = []
        self._waits: Literal["connected", "always"] = waits
        self._layout.create()
        if results is None:
            _ = self._shared_store  # connect

    def __reduce__(self) -> tuple[Callable[..., "Store"], tuple[object, ...]]:
        return _reopen, (self.root, self.max_bytes, self.shared, self.stale_s, self.results)

    @cached_property
    def _shared_store(self) -> SharedStore | None:
        if self.shared is None:
            return None
        tree = shared_tree(self.shared, of_results=self.results is not None, waits=self._waits)
        return SharedStore(tree, self.stale_s)

    def find(self, kind: str, spec: Mapping[str, Any]) -> Path | None:
        """Return the artifact's directory if it is intact, here or in the shared store; None if it has to be built.

        Checksums are compared at the first use and again after a file has changed its size or time.

        Raises:
            StoreError: the shared store cannot be reached.
        """
        return self._find(ArtifactId(kind, content_key(kind, spec)))

    def get_or_build(self, kind: str, spec: Mapping[str, Any], build: Build) -> Path:
        """Return the directory of the artifact that ``spec`` determines; build it if it is missing.

        Args:
            kind: what it is, such as ``"dataset"``; the name of its folder in the store.
            spec: everything that determines it, as JSON values.
            build: ``build(target, scratch)`` writes the artifact's files into the empty directory ``target``; a killed
                build leaves ``scratch``, with its checkpoints, to the next one.

        Raises:
            DiskError: the disk does not take it; ``scratch`` is kept, and nothing unfinished is in place.
            StoreError: the shared store cannot be reached.
        """
        with self.lock(kind, spec, blocking=True) as artifact:
            assert artifact is not None, "it was waited for"
            return artifact.path or artifact.publish(lambda target: build(target, artifact.scratch))

    @contextmanager
    def lock(self, kind: str, spec: Mapping[str, Any], *, blocking: bool) -> Iterator[Artifact | None]:
        """Find an artifact, or have the right to build it until it is published or the block ends.

        For work that yields other results while it builds; else use ``get_or_build``. At most one process over all
        hosts has the right. A block that ends without ``publish`` leaves the scratch to the next process.

        Yields:
            the artifact; None if another process builds it and ``blocking`` is off.

        Raises:
            DiskError: the disk does not take the lock or the scratch.
            StoreError: the shared store cannot be reached.
        """
        artifact = ArtifactId(kind, content_key(kind, spec))
        self._layout.check_directories(kind)
        scratch, lock = self._layout.scratch(artifact), self._build_lock(artifact)

        def publish(build: Callable[[Path], None]) -> Path:
            path = self._publish(artifact, spec, build)
            lock.release()
            self.free_up(0, keep=artifact)
            return path

        found, is_locked = self._find(artifact), False
        try:
            if found is None:
                with disk_errors(self._layout.path(artifact)):
                    is_locked = lock.acquire(blocking=blocking)
                    found = self._find(artifact) if is_locked else None
                    if is_locked and found is None:
                        scratch.mkdir(exist_ok=True)
            if found is not None:
                lock.release()
                self._complete_upload(artifact)  # which its builder may not have finished
            yield Artifact(found, scratch, publish) if found is not None or is_locked else None
        finally:
            lock.release()

    def resolve_locally(self, directory: Path) -> Path:
        """Return this machine's directory of an artifact that another process's store returned; fetch it if needed."""
        if self.results is None:
            return directory
        artifact = ArtifactId(directory.parent.name, directory.name)
        if (found := self._find(artifact)) is None:
            store = without_secrets(self.shared or str(self.root))
            raise StoreError(f"the store {store} has lost its {artifact}; run the same command again, which builds it")
        return found

    @contextmanager
    def pin_used(self, study: str) -> Iterator[None]:
        """Pin every artifact that this store has returned, or returns in the block, for a running study."""
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
        """Pin an artifact, which may be a directory that grows, and mark its use; return whether it exists."""
        artifact, now = ArtifactId(kind, key), time.monotonic()
        for pin in self._pins:
            pin.add([artifact])
        if not self._layout.path(artifact).exists():
            return False
        if now - self._used.get(artifact, -_MARK_S) >= _MARK_S:
            self._used[artifact] = now
            with suppress(OSError):  # the disk is full or read-only
                self._layout.last_use(artifact).touch()
        return True

    def free_up(self, num_bytes: int, *, keep: ArtifactId | None = None) -> int:
        """Delete artifacts without pins until ``num_bytes`` more fit; return how many do, 0 or below if none."""
        if self.max_bytes is None:
            return num_bytes
        try:
            _, used_bytes = evict(self._layout, max_bytes=self.max_bytes - num_bytes, keep=keep)
        except OSError:  # something cannot be deleted
            return 0
        return self.max_bytes - used_bytes

    def _build_lock(self, artifact: ArtifactId) -> BuildLock:
        shared = [self._shared_store.lock_files] if self._shared_store else []
        return BuildLock(self._layout.lock(str(artifact)), [self._lock_files, *shared])

    def _find(self, artifact: ArtifactId) -> Path | None:
        while self._is_here(artifact) or self._fetch(artifact):
            if self.mark_used(*artifact):  # else it was deleted just now
                return self._layout.path(artifact)
        return None

    def _is_here(self, artifact: ArtifactId) -> bool:
        path = self._layout.path(artifact)
        now = stamps(path)
        if self._verified.get(artifact) != now:
            self._verified.pop(artifact, None)
            if not is_intact(path, artifact.key):
                return False
            self._verified[artifact] = now
        return True

    def _fetch(self, artifact: ArtifactId) -> bool:
        if self._shared_store is None or not self._shared_store.has(artifact):
            return False
        with disk_errors(self._layout.path(artifact)):
            target = self._layout.new_target(artifact, "fetched-")
            try:
                if not self._shared_store.fetch(artifact, target):
                    return False
                self._rename_into_place(target, artifact)
            finally:
                shutil.rmtree(target, ignore_errors=True)
        self._uploaded.add(artifact)
        self.free_up(0, keep=artifact)
        return self._is_here(artifact)

    def _publish(self, artifact: ArtifactId, spec: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        path, is_shared = self._layout.path(artifact), False
        with disk_errors(path):
            target = self._layout.new_target(artifact)
            try:
                build(target)
                seal(target, artifact.kind, spec)
                try:
                    is_shared = self._fetch(artifact)  # of a builder that took this one for dead
                finally:
                    self._rename_into_place(target, artifact)
            except FileNotFoundError:
                # A builder that took this one for dead has published the artifact and deleted target and scratch.
                if not self._is_here(artifact):
                    raise
            finally:
                shutil.rmtree(target, ignore_errors=True)
            self._verified[artifact] = stamps(path)
            for leftover in (self._layout.scratch(artifact), *self._layout.tmp.glob(f"{artifact}.*")):
                shutil.rmtree(leftover, ignore_errors=True)
            self.mark_used(*artifact)
            if self._shared_store is not None and not is_shared:
                self._shared_store.upload(artifact, path)
                self._uploaded.add(artifact)
        return path

    def _rename_into_place(self, target: Path, artifact: ArtifactId) -> None:
        """Make a sealed directory the artifact unless an intact one is there; move a damaged one aside."""
        path = self._layout.path(artifact)
        path.parent.mkdir(exist_ok=True)
        while True:
            try:
                target.rename(path)
            except OSError:
                if not os.path.lexists(path):
                    raise
                if is_intact(path, artifact.key):
                    return
                self._layout.move_aside(artifact, "damaged")
            else:
                fsync(path.parent)
                return

    def _complete_upload(self, artifact: ArtifactId) -> None:
        if self._shared_store is None or artifact in self._uploaded:
            return
        lock = self._build_lock(artifact)
        with disk_errors(self._layout.path(artifact)):
            try:
                if not self._shared_store.has(artifact) and lock.acquire() and not self._shared_store.has(artifact):
                    self._shared_store.upload(artifact, self._layout.path(artifact))
            finally:
                lock.release()
        self._uploaded.add(artifact)


def _reopen(root: Path, max_bytes: int | None, shared: str | None, stale_s: float, results: str | None) -> Store:
    root = root if results is None else cached_store(results)
    return Store(root, max_bytes=max_bytes, shared=shared, stale_s=stale_s, results=results, waits="always")
