"""A trial's end of the stream: blocks arrive on a thread before they are needed.

    trial thread                        prefetch thread                        router, servers, object store
    prefetch(keys) -> requested --wakes--> Fetcher: refs(keys), lost() -------> references
    get(keys), waits <--wakes--  ready <-- Fetcher: ray.wait, ray.get <-------- blocks, read-only views
    prepare(keys) -> plan ------wakes----> Preparation: prepare(keys) --------> blocks are made, and stay there

Only ``get`` waits, for the prefetch thread, which wakes it with a block, with the failure of a block, or with its own
end. The prefetch thread collects what is requested and nobody waits for yet, and waits inside Ray for blocks that are
being made. It prepares while nothing is requested, and sleeps while nothing is to be prepared either.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from gitdist.errors import StreamError
from gitdist.stream.connection import Connection, closed_error, stream_error
from gitdist.stream.fetcher import Fetcher
from gitdist.stream.keys import Block, BlockKey, Lane
from gitdist.stream.metrics import ClientMetrics
from gitdist.stream.preparation import Preparation

_CAPACITY = 2048  # blocks that arrived and were not taken
_GATHER_S = 0.2  # requests that nobody waits for yet are collected so long


class RayBlocks:
    """Blocks of a running stream; for the threads of one process.

    A block leaves this object with the ``get`` that returns it.
    """

    def __init__(self, router: Any, patience_s: float = 300.0, *, autoscaling: bool = False) -> None:
        """Connect to a stream.

        Args:
            router: name or handle of the stream's router.
            patience_s: time without an answer, without any block but lost ones, or without a server, after which the
                stream has failed.
            autoscaling: the cluster adds nodes by itself: a server that has no room is waited for as long as it takes.

        Raises:
            StreamError: there is no such router.
        """
        self._closed = threading.Event()
        connection = Connection(router, patience_s, self._closed)
        self._fetcher = Fetcher(connection, autoscaling)
        self.layout = self._fetcher.layout
        self._changed = threading.Condition()
        self._requested: dict[BlockKey, None] = {}
        self._positions: dict[Lane, int] = {}  # of each lane in use, the block after the last requested one
        self._preparation = Preparation(connection, self._changed, self._has_urgent)
        self._ready: OrderedDict[BlockKey, Block | StreamError] = OrderedDict()
        self._metrics = ClientMetrics(self._fetcher.stream)
        self._num_waiting = 0
        self._waited_s = 0.0  # in ``get``, of all threads, and not counted yet
        self._failure: StreamError | None = None
        self._thread = threading.Thread(target=self._run, name="gitdist-prefetch", daemon=True)
        self._thread.start()

    @property
    def generated(self) -> int:
        """None: the servers generate."""
        return 0

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

    def prepare(self, keys: Sequence[BlockKey]) -> None:
        """Have these blocks made in this order while servers are idle, but no more than the router keeps.

        Returns at once. The plan before is dropped; what is requested meanwhile comes first.
        """
        with self._changed:
            self._preparation.replace(key for key in keys if key not in self._ready and key not in self._requested)
            self._changed.notify_all()

    def close(self) -> None:
        """End the prefetch thread; whoever waits in ``get`` gets a StreamError."""
        with self._changed:
            self._closed.set()
            self._requested.clear()
            self._preparation.replace(())
            self._ready.clear()
            self._changed.notify_all()
        self._thread.join()
        with self._changed:
            waited_s, self._waited_s = self._waited_s, 0.0
        self._metrics.note(0, waited_s)

    def _request(self, keys: Sequence[BlockKey]) -> None:
        for key in keys:
            self._positions[key.lane] = key.index + 1
        self._preparation.strike(keys)
        new = [key for key in keys if key not in self._ready and key not in self._requested]
        if new:
            self._requested.update(dict.fromkeys(new))
            self._changed.notify_all()

    def _wait_for_news(self) -> None:
        self._num_waiting += 1
        self._changed.notify_all()
        started = time.perf_counter()
        try:
            self._changed.wait()
        finally:
            self._num_waiting -= 1
            self._waited_s += time.perf_counter() - started

    def _check_open(self) -> None:
        if self._failure is not None:
            raise _again(self._failure)
        if self._closed.is_set():
            raise closed_error()

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                if keys := self._next_keys():
                    self._deliver(self._fetcher.fetch(keys, self._positions))
                elif self._preparation:
                    self._preparation.step()
        except Exception as error:  # whatever it is, the waiting threads must hear of it
            failure = error if isinstance(error, StreamError) else stream_error("deliver blocks", error)
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def _next_keys(self) -> list[BlockKey]:
        """Return what is requested, after a wait for anything to do; empty where that is to prepare, or to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_urgent() or self._preparation)
            if self._requested:
                self._changed.wait_for(lambda: self._num_waiting or self._closed.is_set(), timeout=_GATHER_S)
            return list(self._requested)

    def _has_urgent(self) -> bool:
        return bool(self._requested) or self._closed.is_set()

    def _deliver(self, outcomes: "dict[BlockKey, Block | StreamError]") -> None:
        with self._changed:
            for key, outcome in outcomes.items():
                self._requested.pop(key, None)
                self._ready[key] = outcome
            while len(self._ready) > _CAPACITY:
                self._ready.popitem(last=False)
            self._changed.notify_all()
            waited_s, self._waited_s = self._waited_s, 0.0
        self._metrics.note(sum(isinstance(outcome, Block) for outcome in outcomes.values()), waited_s)


def _again(failure: StreamError) -> StreamError:
    """Return the same failure for another waiting thread, with a traceback of its own."""
    copy = StreamError(str(failure))
    copy.__cause__ = failure.__cause__
    return copy
