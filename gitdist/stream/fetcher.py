"""How blocks reach a process: references from the router, then the blocks themselves from the object store.

A call costs some hundred times what a block in it costs. So with what is requested come the next blocks of all lanes in
use as far as they exist already; a trial behind others calls the router once in many blocks. A reference that was lost
with its owner or its node is reported to the router and asked for again, and so is one to a making that had failed
before it was asked for; an exception in the making of a block is the answer to everyone who asked before it came.
Blocks that are slow to come are waited for, but not where no server is left: trials that wait may hold its room.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from gitdist.errors import StreamError
from gitdist.stream.connection import Connection, stream_error
from gitdist.stream.keys import Block, BlockKey, Lane, Span
from gitdist.stream.router import RouterStats
from gitdist.stream.routing import Found

_AHEAD = 32  # blocks of each lane that are fetched beyond the requested ones where they exist already, at most
_AHEAD_BYTES = 64 * 2**20  # and at most so much of all lanes
_SETTLE_S = 0.005  # blocks that exist arrive together within this time
_ROUND_S = 0.1  # new requests wait at most so long for blocks that are being made
_RENEW_S = 5.0  # without a block, the router is asked whether another server makes them by now


class Fetcher:
    """The prefetch thread's knowledge of references; for one thread."""

    def __init__(self, connection: Connection, autoscaling: bool) -> None:
        """Ask the router for the stream's name and the layout of its blocks.

        Args:
            connection: to the router.
            autoscaling: where no server is left, one is waited for as long as it takes.

        Raises:
            StreamError: it does not answer.
        """
        self._connection, self._autoscaling = connection, autoscaling
        self._delivery = connection.patience()  # not that of calls: a router may answer while blocks get lost
        self._desertion = connection.patience()
        self._found: dict[BlockKey, Found[ObjectRef[Any]]] = {}  # of blocks that are yet to arrive
        self._known_to: dict[Lane, int] = {}  # of each lane in use, the first block never heard of
        self._news_at = time.monotonic()
        stats: RouterStats = self._connection.call("stats")
        self.stream, self.layout = stats.stream, stats.layout

    def fetch(self, keys: Sequence[BlockKey], positions: Mapping[Lane, int]) -> dict[BlockKey, Block | StreamError]:
        """Return the blocks that arrived in one round, or failed: of ``keys``, and some beyond ``positions``.

        Raises:
            StreamError: the router is gone, blocks get lost for too long, or there has been no server for too long.
        """
        unknown = [key for key in keys if key not in self._found]
        if unknown:
            self._ask(unknown, positions)
        by_reference = {found.reference: found for found in self._found.values()}
        arrived = _wait(list(by_reference))
        ended = [self._found.pop(by_reference[reference].key) for reference in arrived]
        outcomes: dict[BlockKey, Block | StreamError]
        try:
            outcomes = {found.key: block for found, block in zip(ended, ray.get(arrived), strict=True)}
        except RayError:
            outcomes = self._sort_out(ended)
        now = time.monotonic()
        if outcomes:
            self._delivery.renew()
            self._desertion.renew()
            self._news_at = now
        elif now - self._news_at > _RENEW_S:
            self._forget_references()
            self._look_for_servers()
            self._news_at = now
        return outcomes

    def _look_for_servers(self) -> None:
        stats: RouterStats = self._connection.call("stats")
        if stats.alive:
            self._desertion.renew()
        elif self._desertion.ends() and not self._autoscaling:
            raise StreamError(
                "blocks are made by the stream's servers, but none is left, and the nodes have had no room for one for "
                f"{self._desertion.limit_s:g} s; run the same command again, which places servers before trials"
            )

    def _ask(self, keys: list[BlockKey], positions: Mapping[Lane, int]) -> None:
        positions = dict(positions)  # the trial's thread goes on
        ahead = min(_AHEAD, _AHEAD_BYTES // (self.layout.block_bytes * len(positions)))
        spans = [
            Span(lane, max(position, self._known_to.get(lane, 0)), position + ahead)
            for lane, position in positions.items()
        ]
        answer: list[Found[ObjectRef[Any]]] = self._connection.call("refs", keys, spans)
        for found in answer:
            key = found.key
            self._found[key] = found
            self._known_to[key.lane] = max(self._known_to.get(key.lane, 0), key.index + 1)

    def _sort_out(self, ended: "list[Found[ObjectRef[Any]]]") -> dict[BlockKey, Block | StreamError]:
        outcomes: dict[BlockKey, Block | StreamError] = {}
        lost: list[tuple[BlockKey, str]] = []
        trouble: RayError | None = None
        for key, reference, is_old in ended:
            try:
                outcomes[key] = ray.get(reference)
            except (RayTaskError, ActorDiedError) as error:
                lost.append((key, reference.hex()))
                if not is_old:
                    outcomes[key] = stream_error(f"make block {key.index} of class {key.class_index}", error)
            except RayError as error:
                lost.append((key, reference.hex()))
                trouble = error
        self._connection.call("lost", lost)
        if trouble is not None:
            self._forget_references()
            self._look_for_servers()
            self._delivery.endure(trouble)
        return outcomes

    def _forget_references(self) -> None:
        self._found.clear()
        self._known_to.clear()


def _wait(references: "list[ObjectRef[Any]]") -> "list[ObjectRef[Any]]":
    """Return the references whose blocks are there, waiting at most a round for the first of them."""
    ended, _ = ray.wait(references, num_returns=len(references), timeout=_SETTLE_S)
    if not ended:
        ended, _ = ray.wait(references, num_returns=1, timeout=_ROUND_S)
    return list(ended)
