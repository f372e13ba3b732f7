r"""A trial's end of the stream: blocks arrive on a thread before the trial needs them.

    server --make--> object store, router --refs(keys)--> client --get(keys)--> mix

Two threads share one table ``block -> state``:

    plan    -> planned --prefill()--> prefilled     made while servers are idle; the block stays with its server
                     \               /
    request ---------> requested                    the trial will need the block
                           | refs()                 also returns the blocks after those, if they are made
                         known                      its reference is here
                           | ray.wait, ray.get
                         ready                      the block, or the reason why it could not be made, is here
                           | get
                         held                       the trial takes draws from it, until ``release``

The trial's thread waits in ``get`` only. The prefetch thread wakes it with a block, with the failure of a block, or
with its own end. The prefetch thread waits until ``request``, ``get``, ``plan`` or ``close`` wakes it, and inside Ray
for blocks that are being made. It prefills while nothing is requested. No block comes here for that, and the next few
are planned when some of the last are made, so a client that dies leaves its servers with a few blocks to make.

A router call costs a hundred times what a block in it costs. So a call for requested blocks also returns the following
blocks of every sequence in use, as far as they are made: a trial behind others calls the router once per many blocks.

A reference that was lost with its owner or its node is reported to the router, and the block is requested again. The
same holds for one whose making had failed before it was requested. If the making fails later, all who requested the
block get the error. Slow blocks are waited for; a stream without a live server fails after a deadline, since waiting
trials may hold the resources that a server needs.
"""

import enum
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray import ObjectRef
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError, RayTaskError

from gitdist.bounds import rows_within
from gitdist.errors import StreamError
from gitdist.stream.blocks import Block, BlockKey, BlockRange, BlockSequence
from gitdist.stream.router import BlockRef, PrefillReply, RouterStats

_READY_BLOCKS, _READY_BYTES = 2048, 2**30  # at most; the oldest are dropped
_GATHER_S = 0.2  # requests are collected for this long while the trial does not wait
_AHEAD = 32  # blocks of each sequence that are read beyond the requested ones if they are made, at most
_AHEAD_BYTES = 64 * 2**20  # of all sequences together, at most
_ARRIVE_S = 0.005  # blocks that are made arrive together within this time
_ROUND_S = 0.1  # new requests wait for at most this long while blocks are being made
_RENEW_S = 5.0  # without a block, the router is asked again: another server may make them by now
_RETRY_S = 0.2  # before a failed call is repeated
_PREFILL_BLOCKS = 64  # per call; most of them are made already if another client is ahead
_BUSY_S = 0.2  # before busy servers are asked again to prefill
_FULL_S = 2.0  # before a router is asked again whose window is full, or which has all planned blocks


class BlockState(enum.Enum):
    """What a client knows of a block; see the diagram above."""

    PLANNED = enum.auto()
    PREFILLED = enum.auto()
    REQUESTED = enum.auto()
    KNOWN = enum.auto()
    READY = enum.auto()
    HELD = enum.auto()


PLANNED, PREFILLED, REQUESTED, KNOWN, READY, HELD = BlockState


class BlockTable:
    """One state per block, and the value that belongs to it; not thread-safe."""

    def __init__(self) -> None:
        """Start without blocks."""
        self._states: dict[BlockKey, BlockState] = {}
        self._values: dict[BlockState, dict[BlockKey, Any]] = {state: {} for state in BlockState}

    def __getitem__(self, state: BlockState) -> Mapping[BlockKey, Any]:
        """Return the blocks of one state with their values, in the order in which they entered it."""
        return self._values[state]

    def state(self, key: BlockKey) -> BlockState | None:
        """Return a block's state; None if the block is not in the table."""
        return self._states.get(key)

    def move(self, key: BlockKey, state: BlockState, value: Any = None) -> None:
        """Put a block into a state, out of the one it was in."""
        self.discard(key)
        self._states[key] = state
        self._values[state][key] = value

    def discard(self, key: BlockKey) -> None:
        """Remove a block, if it is there."""
        state = self._states.pop(key, None)
        if state is not None:
            del self._values[state][key]


class BlockClient:
    """The blocks of a running stream, for one trial's thread; see ``BlockSource``."""

    def __init__(
        self, router: Any, deadline_s: float = 300.0, *, autoscaling: bool = False, generator: str = "the generator"
    ) -> None:
        """Connect to a stream.

        Args:
            router: name or handle of the stream's router.
            deadline_s: time without an answer, without any but lost blocks, or without a live server.
            autoscaling: the cluster adds nodes by itself; a live server is waited for without a deadline.
            generator: how errors name what makes the blocks.

        Raises:
            StreamError: there is no such router.
        """
        self.generated, self.waited_s = 0, 0.0
        self._closed = threading.Event()
        self._router = RouterClient(router, deadline_s, self._closed)
        stats: RouterStats = self._router.call("stats")
        self.layout = stats.layout
        self._max_ready = min(_READY_BLOCKS, rows_within(_READY_BYTES, self.layout.block_bytes))
        self._autoscaling, self._generator = autoscaling, generator
        self._delivery = RetryDeadline(deadline_s, self._closed)  # a router may answer while all blocks get lost
        self._server_return = RetryDeadline(deadline_s, self._closed)
        self._arrived_at = time.monotonic()

        self._changed = threading.Condition()  # guards all below
        self._table = BlockTable()
        self._requested_to: defaultdict[BlockSequence, int] = defaultdict(int)  # of each sequence in use
        self._known_to: defaultdict[BlockSequence, int] = defaultdict(int)
        self._is_waiting = False
        self._failure: StreamError | None = None
        self._prefill_at = 0.0  # not before; monotonic clock
        self._prefilling_router = ""  # the router process that has the prefilled blocks
        self._thread = threading.Thread(target=self._run, name="gitdist-prefetch", daemon=True)
        self._thread.start()

    # The trial's thread

    def plan(self, keys: Sequence[BlockKey]) -> None:
        """Have these blocks made in this order while servers are idle; this replaces the plan before."""
        table = self._table
        with self._changed:
            for key in [*table[PLANNED], *table[PREFILLED]]:
                table.discard(key)
            for key in keys:
                if table.state(key) is None:
                    table.move(key, PLANNED)
            self._prefill_at = 0.0
            self._changed.notify_all()

    def request(self, keys: Sequence[BlockKey]) -> None:
        """Have these blocks delivered, most urgent first."""
        with self._changed:
            self._request(keys)

    def get(self, keys: Sequence[BlockKey]) -> list[Block]:
        """Return the blocks in the order of ``keys``, waiting for them; they are held until ``release``."""
        table = self._table
        with self._changed:
            held = table[HELD]
            while missing := [key for key in keys if key not in held]:
                arrived = [key for key in missing if table.state(key) is READY]
                for key in arrived:
                    outcome = table[READY][key]
                    if isinstance(outcome, StreamError):
                        table.discard(key)
                        raise outcome
                    table.move(key, HELD, outcome)
                if not arrived:
                    self._wait_for(missing)
            return [held[key] for key in keys]

    def release(self, keys: Sequence[BlockKey]) -> None:
        """Let go of held blocks that are used up."""
        with self._changed:
            for key in keys:
                if self._table.state(key) is HELD:
                    self._table.discard(key)

    def close(self) -> None:
        """End the prefetch thread; a thread that waits in ``get`` gets a StreamError."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        self._thread.join()
        with self._changed:
            self._table = BlockTable()

    def _request(self, keys: Sequence[BlockKey]) -> None:
        for key in keys:
            self._requested_to[key.sequence] = max(self._requested_to[key.sequence], key.index + 1)
            if self._table.state(key) in (None, PLANNED, PREFILLED):
                self._table.move(key, REQUESTED)
        self._changed.notify_all()

    def _wait_for(self, keys: Sequence[BlockKey]) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed.is_set():
            raise _closed_error()
        self._request(keys)
        self._is_waiting = True
        started = time.perf_counter()
        try:
            self._changed.wait()
        finally:
            self._is_waiting = False
            self.waited_s += time.perf_counter() - started

    # The prefetch thread

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                with self._changed:
                    self._changed.wait_for(lambda: self._is_urgent() or self._has_plan())
                    is_urgent = self._is_urgent()
                    if is_urgent:
                        self._changed.wait_for(lambda: self._is_waiting or self._closed.is_set(), timeout=_GATHER_S)
                if is_urgent:
                    self._fetch()
                else:
                    self._prefill()
        except Exception as error:  # whatever it is, the waiting trial must get it
            with self._changed:
                self._failure = error if isinstance(error, StreamError) else stream_error("deliver blocks", error)
                self._changed.notify_all()

    def _is_urgent(self) -> bool:
        return bool(self._table[REQUESTED] or self._table[KNOWN] or self._closed.is_set())

    def _has_plan(self) -> bool:
        return bool(self._table[PLANNED] or self._table[PREFILLED])

    def _fetch(self) -> None:
        """Get the references of requested blocks, and read the blocks that arrive in one round."""
        table = self._table
        with self._changed:
            requested = list(table[REQUESTED])
            ahead = self._ranges_ahead() if requested else []
        refs: list[BlockRef[ObjectRef[Any]]] = self._router.call("refs", requested, ahead) if requested else []
        with self._changed:
            for ref in refs:
                self._known_to[ref.key.sequence] = max(self._known_to[ref.key.sequence], ref.key.index + 1)
                if table.state(ref.key) not in (READY, HELD):
                    table.move(ref.key, KNOWN, ref)
            known = {ref.reference: ref for ref in table[KNOWN].values()}
        if not known:
            return
        references = list(known)
        arrived = ray.wait(references, num_returns=len(references), timeout=_ARRIVE_S)[0]
        arrived = arrived or ray.wait(references, num_returns=1, timeout=_ROUND_S)[0]
        try:
            blocks = ray.get(arrived)
            outcomes = {known[reference].key: block for reference, block in zip(arrived, blocks, strict=True)}
        except RayError:
            outcomes = self._sort_out([known[reference] for reference in arrived])
        with self._changed:
            for key, outcome in outcomes.items():
                table.move(key, READY, outcome)
            for key in list(islice(table[READY], max(0, len(table[READY]) - self._max_ready))):
                table.discard(key)
            self._changed.notify_all()
        now = time.monotonic()
        if outcomes:
            self._delivery.reset()
            self._server_return.reset()
            self._arrived_at = now
        elif now - self._arrived_at > _RENEW_S:
            self._renew()
            self._arrived_at = now

    def _ranges_ahead(self) -> list[BlockRange]:
        ahead = min(_AHEAD, _AHEAD_BYTES // (self.layout.block_bytes * len(self._requested_to)))
        return [
            BlockRange(sequence, max(requested_to, self._known_to[sequence]), requested_to + ahead)
            for sequence, requested_to in self._requested_to.items()
        ]

    def _sort_out(self, refs: "list[BlockRef[ObjectRef[Any]]]") -> dict[BlockKey, Block | StreamError]:
        """Return the blocks and failures behind the references, one by one, and report those that are lost."""
        outcomes: dict[BlockKey, Block | StreamError] = {}
        lost: list[tuple[BlockKey, str]] = []
        loss: RayError | None = None
        for key, reference, was_done in refs:
            try:
                outcomes[key] = ray.get(reference)
            except (RayTaskError, ActorDiedError) as error:
                lost.append((key, reference.hex()))
                if not was_done:
                    made = f"make block {key.index} of class {key.class_index} with {self._generator}"
                    outcomes[key] = stream_error(made, error)
            except RayError as error:
                lost.append((key, reference.hex()))
                loss = error
        with self._changed:
            self._forget([key for key, _ in lost if key not in outcomes])
        self._router.call("report_lost", lost)
        if loss is not None:
            self._renew()
            self._delivery.check(loss)
        return outcomes

    def _renew(self) -> None:
        """Request all blocks again whose reference is here, and check that a server is alive."""
        with self._changed:
            self._forget(list(self._table[KNOWN]))
            self._known_to.clear()
        stats: RouterStats = self._router.call("stats")
        if stats.alive:
            self._server_return.reset()
        elif self._server_return.has_expired() and not self._autoscaling:
            raise StreamError(
                "blocks are made by the stream's servers, but none is alive, and no node had resources for one for "
                f"{self._server_return.limit_s:g} s; run the same command again, which places servers before trials"
            )

    def _forget(self, keys: Sequence[BlockKey]) -> None:
        """Request blocks again, but those that were read ahead are dropped."""
        for key in keys:
            if key.index < self._requested_to[key.sequence]:
                self._table.move(key, REQUESTED)
            else:
                self._table.discard(key)

    def _prefill(self) -> None:
        """Pause, or have some blocks made and wait for one of them; return soon if a block is requested."""
        with self._changed:
            if self._is_urgent():
                return
            if (pause_s := self._prefill_at - time.monotonic()) > 0:
                self._changed.wait(pause_s)
                return
            keys = list(islice(self._table[PLANNED], _PREFILL_BLOCKS))
        reply: PrefillReply[ObjectRef[Any]] = self._router.call("prefill", keys)
        with self._changed:
            self._record(reply)
        while reply.making and not self._is_urgent():
            if ray.wait(reply.making, num_returns=1, timeout=_ROUND_S, fetch_local=False)[0]:
                return

    def _record(self, reply: "PrefillReply[ObjectRef[Any]]") -> None:
        table = self._table
        if reply.router != self._prefilling_router:  # the blocks of the router before went with it
            self._prefilling_router = reply.router
            for key in [*table[PREFILLED], *table[PLANNED]]:
                table.move(key, PLANNED)
        for key in reply.made:
            if table.state(key) is PLANNED:
                table.move(key, PREFILLED)
        planned = table[PLANNED]
        if reply.making or (reply.made and planned):
            pause_s = 0.0
        else:
            pause_s = _FULL_S if reply.is_full or not planned else _BUSY_S
        self._prefill_at = time.monotonic() + pause_s


class RouterClient:
    """Calls to a stream's router that outlast its restarts; for one thread at a time."""

    def __init__(self, router: Any, deadline_s: float, closed: threading.Event) -> None:
        """Find the router by name or handle; ``closed`` ends every wait.

        Raises:
            StreamError: there is no such router.
        """
        self._deadline_s, self._closed = deadline_s, closed
        try:
            self._router = ray.get_actor(router) if isinstance(router, str) else router
        except ValueError as error:
            raise StreamError(
                f"a stream must be running, but no router is named '{router}'; launch it first"
            ) from error

    def call(self, method: str, *arguments: Any) -> Any:
        """Call the router, and again while it is being restarted."""
        deadline = RetryDeadline(self._deadline_s, self._closed)
        while True:
            reference = getattr(self._router, method).remote(*arguments)
            try:
                while not self._closed.is_set():
                    try:
                        return ray.get(reference, timeout=1.0)
                    except GetTimeoutError as error:
                        deadline.check(error, pause_s=0.0)
                raise _closed_error()
            except (RayTaskError, ActorDiedError) as error:
                raise stream_error("reach its router", error) from error
            except RayError as error:
                deadline.check(error)


class StreamTransform:
    """Transforms images on the servers of a running stream; see ``BlockMaker.transform``."""

    def __init__(self, servers: Sequence[Any], digest: str, generator: str) -> None:
        """Take handles of the servers, the digest of the stream, and how errors name the generator."""
        self._servers, self._digest, self._generator = servers, digest, generator

    @classmethod
    def connect(cls, router: Any, deadline_s: float = 300.0, *, generator: str = "the generator") -> "StreamTransform":
        """Return the transform of the stream whose router has this name or handle; see ``BlockClient``."""
        servers, digest = RouterClient(router, deadline_s, threading.Event()).call("servers")
        return cls(servers, digest, generator)

    def __call__(
        self, images: NDArray[np.uint8], clean: NDArray[np.uint8], name: str, index: int = 0, first: int = 0
    ) -> NDArray[np.uint8]:
        """Return one fresh draw for each image, made by a server and read-only.

        Raises:
            StreamError: a server fails.
        """
        server = self._servers[index % len(self._servers)]
        try:
            drawn: NDArray[np.uint8] = ray.get(server.transform.remote(images, clean, name, index, first, self._digest))
        except RayError as error:
            raise stream_error(f"transform {len(images)} images with {self._generator}", error) from error
        return drawn


class RetryDeadline:
    """How long one kind of failure may last, from its first sign to the next success."""

    def __init__(self, limit_s: float, closed: threading.Event) -> None:
        """Begin without a failure; ``closed`` ends every pause."""
        self.limit_s, self._closed = limit_s, closed
        self._since: float | None = None

    def check(self, error: RayError, pause_s: float = _RETRY_S) -> None:
        """Pause before the next attempt, or raise StreamError if the failure has lasted too long."""
        if self.has_expired():
            raise stream_error(f"deliver within {self.limit_s:g} s", error) from error
        self._closed.wait(pause_s)

    def has_expired(self) -> bool:
        """Record a failure, and return whether it has lasted too long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since > self.limit_s

    def reset(self) -> None:
        """Record a success."""
        self._since = None


def stream_error(task: str, error: Exception) -> StreamError:
    """Return the one-line error for a task of the stream that failed with ``error``, which becomes its cause."""
    cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, Exception) else error
    reason = " ".join(str(cause).split()) or "no message"
    failure = StreamError(
        f"the stream must {task}, but {type(cause).__name__}: {reason}; fix the cause and run the study again"
    )
    failure.__cause__ = cause
    return failure


def _closed_error() -> StreamError:
    return StreamError("blocks come from an open stream, but this client is closed; connect a new one")
