"""The store itself: finds artefacts, builds what is missing, keeps what is held and makes room."""

import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from gitdist.address import without_secrets
from gitdist.disk import disk_errors, lock_name, locked, locked_if_free
from gitdist.errors import StoreError
from gitdist.store.claim import Claim
from gitdist.store.claims import Board
from gitdist.store.eviction import make_room
from gitdist.store.home import store_home
from gitdist.store.installation import install
from gitdist.store.keys import ArtefactId, content_key
from gitdist.store.layout import Layout
from gitdist.store.manifest import Stamp, is_whole, seal, stamps
from gitdist.store.place import Place
from gitdist.store.shared import SharedStore
from gitdist.store.usage import Usage

Build = Callable[[Path, Path], None]


class Store:
    """Artefacts under one directory, each named by the hash of what determines it.

    Safe for threads, for processes and for hosts that share the directory or the shared place; an artefact never
    changes once it is in place. Pickled, it is opened again where it arrives, without what it holds.
    """

    def __init__(
        self,
        root: Path,
        *,
        max_bytes: int | None = None,
        shared: str | None = None,
        stale_s: float = 60.0,
        results: str | None = None,
    ) -> None:
        """Open the store at ``root``, creating it where needed.

        Args:
            root: its directory.
            max_bytes: bound on the artefacts' size; after a build, those unused for longest that no running study
                holds are removed until it is kept. None = no bound.
            shared: a second place that several stores share, such as ``s3://bucket/prefix`` or a path: what is not here
                is taken from there, and what is built here is copied there. None = there is none.
            stale_s: a builder on another host that has given no sign of life for so long, in seconds, is dead; one
                value for all that share a place.
            results: URI of the results on an object store that this machine's store is for. Pickled, it is opened where
                another machine has its own; the shared place is connected at its first use. None = it is at ``root``.

        Raises:
            StoreError: the directory cannot be created or written, or the shared place cannot be reached.
        """
        self.root = Path(root)
        self.max_bytes, self.shared, self.stale_s, self.results = max_bytes, shared, stale_s, results
        self._layout = Layout(self.root)
        self._verified: dict[ArtefactId, list[Stamp]] = {}
        self._uploaded: set[ArtefactId] = set()
        self._usage = Usage(self._layout)
        self._layout.create()
        self._board = Board(Place.local(self.root), stale_s)
        if results is None:
            _ = self._shared  # connected

    def __reduce__(self) -> tuple[Callable[..., "Store"], tuple[object, ...]]:
        return _reopened, (self.root, self.max_bytes, self.shared, self.stale_s, self.results)

    @cached_property
    def _shared(self) -> SharedStore | None:
        of_results = self.results is not None
        return SharedStore(self.shared, self.stale_s, of_results=of_results) if self.shared is not None else None

    def find(self, kind: str, spec: Mapping[str, Any]) -> Path | None:
        """Return the artefact's directory if it is in place and whole, or can be fetched from the shared place.

        Its checksums are compared at the first use and again after a file has changed its size or time.

        Returns:
            None where it would have to be built.

        Raises:
            StoreError: the shared place cannot be reached.
        """
        return self._find(ArtefactId(kind, content_key(kind, spec)))

    def get_or_build(self, kind: str, spec: Mapping[str, Any], build: Build) -> Path:
        """Return the directory of the artefact that ``spec`` determines, building it if it is not there.

        Args:
            kind: what it is, such as ``"dataset"``; the name of its folder in the store.
            spec: everything that determines it, as JSON values.
            build: ``build(target, scratch)`` writes the artefact's files into the empty directory ``target``;
                ``scratch`` outlives a killed build, so that a long one can go on from its own checkpoints.

        Raises:
            DiskError: the disk does not take it; ``scratch`` is kept, and nothing half-made is in place.
            StoreError: the shared place cannot be reached.
        """
        with self.claim(kind, spec) as claim:
            return claim.found or claim.put(lambda target: build(target, claim.scratch))

    def here(self, directory: Path) -> Path:
        """Return where this process has an artefact whose directory another process's store returned.

        Where the two are on different machines that is another directory, into which it is fetched by kind and key.

        Raises:
            StoreError: it is neither here nor in the shared place, or that cannot be reached.
        """
        if self.results is None:
            return directory
        artefact = ArtefactId(directory.parent.name, directory.name)
        if (found := self._find(artefact)) is None:
            place = without_secrets(self.shared or str(self.root))
            raise StoreError(f"the store {place} has lost its {artefact}; run the same command again, which builds it")
        return found

    @contextmanager
    def claim(self, kind: str, spec: Mapping[str, Any]) -> Iterator[Claim]:
        """Find an artefact, or wait for the right to build it and keep that until it is put or the block ends.

        For work that yields other results while it builds; else use ``get_or_build``. At most one process over all
        hosts has the right. Leaving the block without ``put`` keeps the scratch for the next one.

        Args:
            kind: what it is; the name of its folder in the store.
            spec: everything that determines it, as JSON values.

        Raises:
            DiskError: the disk does not take the claim or the scratch.
            StoreError: the shared place cannot be reached.
        """
        with self._claimed(kind, spec, self._await_turn) as claim:
            assert claim is not None, "it was waited for"
            yield claim

    def claim_if_free(self, kind: str, spec: Mapping[str, Any]) -> AbstractContextManager[Claim | None]:
        """Do what ``claim`` does, but without waiting: None where somebody else has the right to build it, or tries to.

        A process of this host that has the lock but gives no sign of life, since it was stopped, has the right no
        longer. Raises as ``claim``.
        """
        return self._claimed(kind, spec, self._take_turn)

    @contextmanager
    def _claimed(
        self, kind: str, spec: Mapping[str, Any], take_turn: Callable[[ArtefactId, ExitStack], bool]
    ) -> Iterator[Claim | None]:
        artefact = ArtefactId(kind, content_key(kind, spec))
        scratch = self._layout.scratch(artefact)
        with ExitStack() as turn:

            def put(build: Callable[[Path], None]) -> Path:
                place = self._put(artefact, spec, build)
                turn.close()
                self._make_room(artefact)
                return place

            found, has_right = self.find(kind, spec), False
            if found is None:
                with disk_errors(self._layout.place(artefact)):
                    if take_turn(artefact, turn):
                        found = self.find(kind, spec)
                        has_right = found is None
                    if has_right:
                        self._layout.clear_targets(artefact)  # it is our turn, so no builder of them is alive
                        scratch.mkdir(exist_ok=True)
            if not has_right:
                turn.close()
            if found is not None:
                self._settle(artefact)
            yield Claim(found, scratch, put) if found or has_right else None

    def holding(self, name: str) -> AbstractContextManager[None]:
        """Keep every artefact that this store has returned, or returns in the block, from being removed meanwhile.

        Args:
            name: whose they are, for those who wonder why they stay: the study's.
        """
        return self._usage.holding(name)

    def use(self, kind: str, key: str) -> None:
        """Note the use of an artefact that the caller keeps itself, such as a directory that grows, and hold it."""
        self._usage.note(ArtefactId(kind, key))

    def room(self, num_bytes: int) -> int:
        """Return how many bytes a directory of this store may grow by, after a try to make that ``num_bytes``.

        Less where running studies hold too much of what is there; 0 or below = not at all.
        """
        if self.max_bytes is None:
            return num_bytes
        try:
            return num_bytes + make_room(self._layout, self.max_bytes - num_bytes)[1]
        except OSError:  # something cannot be removed
            return 0

    def _find(self, artefact: ArtefactId) -> Path | None:
        while self._is_here(artefact) or self._is_fetched(artefact):
            if self._usage.note(artefact):  # else it was removed just now
                return self._layout.place(artefact)
        return None

    def _is_here(self, artefact: ArtefactId) -> bool:
        place = self._layout.place(artefact)
        now = stamps(place)
        if self._verified.get(artefact) != now:
            self._verified.pop(artefact, None)
            if not is_whole(place, artefact.key):
                return False
            self._verified[artefact] = now
        return True

    def _is_fetched(self, artefact: ArtefactId) -> bool:
        if self._shared is None or not self._shared.has(artefact):
            return False
        with disk_errors(self._layout.place(artefact)):
            target = self._layout.new_target(artefact, "fetched-")
            try:
                if not self._shared.fetch(artefact, target):
                    return False
                install(self._layout, target, artefact)
            finally:
                shutil.rmtree(target, ignore_errors=True)
        self._uploaded.add(artefact)
        self._make_room(artefact)
        return self._is_here(artefact)

    def _await_turn(self, artefact: ArtefactId, turn: ExitStack) -> bool:
        lock = self._layout.lock(str(artefact))
        turn.enter_context(locked(lock))
        for board in self._boards():
            turn.enter_context(board.turn(str(artefact), lock_name(lock)))
        return True

    def _take_turn(self, artefact: ArtefactId, turn: ExitStack) -> bool:
        lock = self._layout.lock(str(artefact))
        is_free = turn.enter_context(locked_if_free(lock))
        name = lock_name(lock) if is_free else secrets.token_hex(16)  # only the boards tell whether its holder lives
        return all(turn.enter_context(board.turn_if_free(str(artefact), name)) for board in self._boards())

    def _boards(self) -> list[Board]:
        return [self._board] if self._shared is None else [self._board, self._shared.board]

    def _put(self, artefact: ArtefactId, spec: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        place = self._layout.place(artefact)
        with disk_errors(place):
            target, is_shared = self._layout.new_target(artefact), False
            try:
                build(target)
                seal(target, artefact.kind, spec)
                try:
                    is_shared = self._is_fetched(artefact)  # another's, who took this builder for dead
                finally:
                    install(self._layout, target, artefact)
            except BaseException as error:
                shutil.rmtree(target, ignore_errors=True)
                # Another builder that took this one for dead has put the artefact and cleared up behind it.
                if not (isinstance(error, FileNotFoundError) and self._is_here(artefact)):
                    raise
            self._verified[artefact] = stamps(place)
            shutil.rmtree(self._layout.scratch(artefact), ignore_errors=True)
            self._usage.note(artefact)
            if self._shared is not None and not is_shared:
                self._shared.upload(artefact, place)
                self._uploaded.add(artefact)
        return place

    def _settle(self, artefact: ArtefactId) -> None:
        """Do for an artefact in place what its builder may have died or failed before."""
        scratch = self._layout.scratch(artefact)
        if scratch.exists():
            with locked_if_free(self._layout.lock(str(artefact))) as is_free:
                if is_free:
                    shutil.rmtree(scratch, ignore_errors=True)
        if self._shared is not None and artefact not in self._uploaded:
            if not self._shared.has(artefact):
                with ExitStack() as turn, disk_errors(self._layout.place(artefact)):
                    self._await_turn(artefact, turn)
                    if not self._shared.has(artefact):
                        self._shared.upload(artefact, self._layout.place(artefact))
            self._uploaded.add(artefact)

    def _make_room(self, newest: ArtefactId) -> None:
        if self.max_bytes is not None:
            with suppress(OSError):  # what cannot be removed now is removed after another build
                make_room(self._layout, self.max_bytes, spare=(newest,))


def _reopened(root: Path, max_bytes: int | None, shared: str | None, stale_s: float, results: str | None) -> Store:
    root = root if results is None else store_home(results)
    return Store(root, max_bytes=max_bytes, shared=shared, stale_s=stale_s, results=results)
