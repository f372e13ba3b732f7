"""A trial's end of the stream: blocks arrive on a thread before they are needed.

    trial thread                        prefetch thread                        router, servers, object store
    prefetch(keys) -> requested --wakes--> refs(keys), lost(references) ------> references
    get(keys), waits <--wakes--  ready <-- ray.wait, ray.get <----------------- blocks, read-only views

Only ``get`` waits, for the prefetch thread, which wakes it with a block, with the failure of a block, or with its own
end. The prefetch thread sleeps while nothing is requested, collects what nobody waits for yet, and waits inside Ray
for blocks that are being made. A reference
that was lost with its owner or its node is reported to the router and asked for again; an exception in the making
of a block is the answer to everyone who waits for that block.

A call costs some hundred times what a block in it costs. So the thread fetches, with what is requested, the next blocks
of all classes in use as far as they exist already; a trial behind others calls the router once in many blocks.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError, RayTaskError

from gitdist.errors import StreamError
from gitdist.stream.keys import Block, BlockKey, Layout, Span

_AHEAD = 16  # blocks of each class that are fetched beyond the requested ones where they exist already, at most
_AHEAD_BYTES = 64 * 2**20  # and at most so much of all classes
_CAPACITY = 2048  # blocks that arrived and were not taken
_GATHER_S = 0.2  # requests that nobody waits for yet are collected so long
_SETTLE_S = 0.005  # blocks that exist arrive together within this time
_ROUND_S = 0.1  # new requests wait at most so long for blocks that are being made
_PAUSE_S = 0.2  # before lost references are asked for again


class RayBlocks:
    """Blocks of a running stream; for the threads of one process.

    A block leaves this object with the ``get`` that returns it.
    """

    def __init__(self, router: Any, patience_s: float = 300.0) -> None:
        """Connect to a stream.

        Args:
            router: name or handle of the stream's router.
            patience_s: time without an answer or without any block, with nodes or actors missing, after which the
                stream has failed.

        Raises:
            StreamError: there is no such router.
        """
        self._closed = threading.Event()
        self._fetcher = _Fetcher(_find_router(router), patience_s, self._closed)
        self.layout = self._fetcher.layout
        self._changed = threading.Condition()
        self._requested: dict[BlockKey, None] = {}
        self._positions: dict[int, int] = {}  # of each class in use, the block after the last requested one
        self._ready: OrderedDict[BlockKey, Block | StreamError] = OrderedDict()
        self._num_waiting = 0
        self._failure: StreamError | None = None
        self._thread = threading.Thread(target=self._run, name="gitdist-prefetch", daemon=True)
        self._thread.start()

    def get(self, keys: Sequence[BlockKey]) -> list[Block]:
        """Return the blocks in the order of ``keys``, waiting for them.

        Raises:
            StreamError: a block could not be made, the stream is gone or this client is closed.
        """
        found: dict[BlockKey, Block] = {}
        with self._changed:
            while missing := [key for key in keys if key not in found]:
                arrived = [key for key in missing if key in self._ready]
                for key in arrived:
                    outcome = self._ready.pop(key)
                    if isinstance(outcome, StreamError):
                        raise _again(outcome)
                    found[key] = outcome
                if not arrived:
                    self._check_open()
                    self._request(missing)
                    self._wait_for_news()
        return [found[key] for key in keys]

    def prefetch(self, keys: Sequence[BlockKey]) -> None:
        """Announce blocks that will be asked for, most urgent first; returns at once."""
        with self._changed:
            self._request(keys)

    def close(self) -> None:
        """End the prefetch thread; whoever waits in ``get`` gets a StreamError."""
        with self._changed:
            self._closed.set()
            self._requested.clear()
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()

    def _request(self, keys: Sequence[BlockKey]) -> None:
        for class_index, index in keys:
            self._positions[class_index] = index + 1
        new = [key for key in keys if key not in self._ready and key not in self._requested]
        if new:
            self._requested.update(dict.fromkeys(new))
            self._changed.notify_all()

    def _wait_for_news(self) -> None:
        self._num_waiting += 1
        self._changed.notify_all()
        try:
            self._changed.wait()
        finally:
            self._num_waiting -= 1

    def _check_open(self) -> None:
        if self._failure is not None:
            raise _again(self._failure)
        if self._closed.is_set():
            raise _closed_error()

    def _run(self) -> None:
        try:
            while keys := self._next_keys():
                self._deliver(self._fetcher.fetch(keys, self._positions))
        except Exception as error:  # whatever it is, the waiting threads must hear of it
            failure = error if isinstance(error, StreamError) else stream_error("deliver blocks", error)
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def _next_keys(self) -> list[BlockKey]:
        with self._changed:
            self._changed.wait_for(lambda: self._requested or self._closed.is_set())
            self._changed.wait_for(lambda: self._num_waiting or self._closed.is_set(), timeout=_GATHER_S)
            return [] if self._closed.is_set() else list(self._requested)

    def _deliver(self, outcomes: "dict[BlockKey, Block | StreamError]") -> None:
        with self._changed:
            for key, outcome in outcomes.items():
                self._requested.pop(key, None)
                self._ready[key] = outcome
            while len(self._ready) > _CAPACITY:
                self._ready.popitem(last=False)
            self._changed.notify_all()


class _Fetcher:
    """The prefetch thread's knowledge of references; for one thread."""

    def __init__(self, router: Any, patience_s: float, closed: threading.Event) -> None:
        self._router = router
        self._patience_s = patience_s
        self._closed = closed
        self._delivery = _Patience(patience_s, closed)  # not that of calls: a router may answer while blocks get lost
        self._references: dict[BlockKey, ObjectRef[Any]] = {}  # of blocks that are yet to arrive
        self._known_to: dict[int, int] = {}  # of each class in use, the first block never heard of
        self.layout: Layout = self._call("stats").layout

    def fetch(self, keys: Sequence[BlockKey], positions: Mapping[int, int]) -> dict[BlockKey, Block | StreamError]:
        """Return the blocks that arrived in one round, or failed: of ``keys``, and some beyond ``positions``."""
        unknown = [key for key in keys if key not in self._references]
        if unknown:
            self._ask(unknown, positions)
        by_reference = {reference: key for key, reference in self._references.items()}
        ended = {by_reference[reference]: reference for reference in _wait(list(by_reference))}
        try:
            outcomes: dict[BlockKey, Block | StreamError] = dict(zip(ended, ray.get([*ended.values()]), strict=True))
        except RayError:
            outcomes = self._sort_out(ended)
        for key in ended:
            self._references.pop(key, None)
        if outcomes:
            self._delivery.renew()
        asked = set(keys)
        return {key: block for key, block in outcomes.items() if key in asked or isinstance(block, Block)}

    def _ask(self, keys: list[BlockKey], positions: Mapping[int, int]) -> None:
        positions = dict(positions)  # the trial's thread goes on
        ahead = min(_AHEAD, _AHEAD_BYTES // (self.layout.block_bytes * len(positions)))
        spans = [
            Span(class_index, max(position, self._known_to.get(class_index, 0)), position + ahead)
            for class_index, position in positions.items()
        ]
        for key, reference in self._call("refs", keys, spans):
            self._references[key] = reference
            self._known_to[key.class_index] = max(self._known_to.get(key.class_index, 0), key.index + 1)

    def _sort_out(self, references: "dict[BlockKey, ObjectRef[Any]]") -> dict[BlockKey, Block | StreamError]:
        outcomes: dict[BlockKey, Block | StreamError] = {}
        lost: list[tuple[BlockKey, str]] = []
        trouble: RayError | None = None
        for key, reference in references.items():
            try:
                outcomes[key] = ray.get(reference)
            except (RayTaskError, ActorDiedError) as error:
                outcomes[key] = stream_error(f"make block {key.index} of class {key.class_index}", error)
                lost.append((key, reference.hex()))
            except RayError as error:
                lost.append((key, reference.hex()))
                trouble = error
        self._call("lost", lost)
        if trouble is not None:
            self._references.clear()
            self._known_to.clear()
            self._delivery.endure(trouble)
        return outcomes

    def _call(self, verb: str, *arguments: Any) -> Any:
        """Call the router, again and again while it is being restarted."""
        patience = _Patience(self._patience_s, self._closed)
        while True:
            reference = getattr(self._router, verb).remote(*arguments)
            try:
                while not self._closed.is_set():
                    try:
                        return ray.get(reference, timeout=1.0)
                    except GetTimeoutError as error:
                        patience.endure(error, pause_s=0.0)
                raise _closed_error()
            except (RayTaskError, ActorDiedError) as error:
                raise stream_error("reach its router", error) from error
            except RayError as error:
                patience.endure(error)


class _Patience:
    """How long one kind of trouble is endured, from its first sign to the next success."""

    def __init__(self, limit_s: float, closed: threading.Event) -> None:
        self._limit_s, self._closed = limit_s, closed
        self._since: float | None = None

    def endure(self, error: RayError, pause_s: float = _PAUSE_S) -> None:
        """Pause, or raise StreamError where the trouble has lasted too long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > self._limit_s:
            raise stream_error(f"deliver within {self._limit_s:g} s", error) from error
        self._closed.wait(pause_s)

    def renew(self) -> None:
        """Forget the trouble."""
        self._since = None


def stream_error(task: str, error: Exception) -> StreamError:
    """Return the one-line error for a task of the stream that failed with ``error``, which becomes its cause."""
    cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, Exception) else error
    reason = " ".join(str(cause).split()) or "no message"
    failure = StreamError(
        f"the stream must {task}, but {type(cause).__name__}: {reason}; mend the cause and run the study again"
    )
    failure.__cause__ = cause
    return failure


def _find_router(router: Any) -> Any:
    if not isinstance(router, str):
        return router
    try:
        return ray.get_actor(router)
    except ValueError as error:
        raise StreamError(f"a stream must be running, but no router is named '{router}'; launch it first") from error


def _wait(references: "list[ObjectRef[Any]]") -> "list[ObjectRef[Any]]":
    """Return the references whose blocks are there, waiting at most a round for the first of them."""
    ended, _ = ray.wait(references, num_returns=len(references), timeout=_SETTLE_S)
    if not ended:
        ended, _ = ray.wait(references, num_returns=1, timeout=_ROUND_S)
    return list(ended)


def _closed_error() -> StreamError:
    return StreamError("blocks come from an open stream, but this client is closed; connect a new one")


def _again(failure: StreamError) -> StreamError:
    """Return the same failure for another waiting thread, with a traceback of its own."""
    copy = StreamError(str(failure))
    copy.__cause__ = failure.__cause__
    return copy
