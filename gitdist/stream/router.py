"""The Ray actor that knows where every block is: block key -> object reference.

    clients -- refs(keys)    --> being made, or in the window        -> the reference to it
                                 else make() of the least loaded server -> a new reference
            -- prefill(keys) --> the same for a few blocks, while servers are idle and the window has space
            -- report_lost() --> the reference is dropped, so the next refs() has the block made again

The router waits for nobody: it hands out a reference before its block exists, and clients wait for the reference.
Images do not pass through it; they go from the server's object store to the client's. The number of blocks being made
is bounded: each client requests a bounded number ahead, and a block is prefilled only while less than two per server
are being made. If a server's process or node is gone, another server makes its blocks, with the same bytes.
"""

import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import ray
from ray import ObjectRef

from gitdist.stream.blocks import BlockKey, BlockLayout, BlockRange, StreamSignature

Reference = TypeVar("Reference")

_CHECK_S = 2.0  # between two checks of which servers are alive, while blocks are made
_PREFILL_PER_SERVER = 2  # blocks: one being made and one to continue with, so a request waits for at most two


class BlockRef(NamedTuple, Generic[Reference]):
    """A block's reference, as the router hands it out."""

    key: BlockKey
    reference: Reference
    was_done: bool  # its making had ended, well or not, before this request


class PrefillReply(NamedTuple, Generic[Reference]):
    """The router's answer to a client that prefills."""

    router: str  # names this process of the router; the blocks of an earlier one are gone with it
    made: list[BlockKey]
    making: list[Reference]
    is_full: bool  # no more blocks can be prefilled without evicting others


@dataclass(frozen=True, kw_only=True)
class RouterStats:
    """A router's process, the layout of its blocks and what it has done since it started."""

    pid: int
    layout: BlockLayout
    calls: int  # of ``refs``
    blocks: int  # whose making has ended
    prefilled: int  # of these, blocks that no trial had requested when their making began
    kept: int  # blocks in the window
    capacity: int  # of the window, in blocks
    outstanding: tuple[int, ...]  # blocks that each server has yet to make
    alive: int  # servers whose process was alive at the last check


class _Task(NamedTuple):
    reference: "ObjectRef[Any]"
    server: int
    is_prefill: bool


class Router:
    """Hands out the references of blocks and has each block made once for all clients; run as a Ray actor."""

    def __init__(self, servers: Sequence[str], signature: StreamSignature, window_bytes: int) -> None:
        """Route to the servers with these actor names; ``window_bytes`` of blocks are kept, ballast included."""
        self._servers = [ray.get_actor(name) for name in servers]  # handles would not outlive a restart
        self._process = secrets.token_hex(8)
        self._signature = signature
        self._window: Window[ObjectRef[Any]] = Window(blocks_within(window_bytes, signature.layout))
        self._tasks: dict[BlockKey, _Task] = {}
        self._outstanding = [0] * len(self._servers)
        self._absent: set[int] = set()
        self._checked_at = time.monotonic()
        self._calls = self._blocks = self._prefilled = 0

    def refs(self, keys: Sequence[BlockKey], ranges: Sequence[BlockRange] = ()) -> "list[BlockRef[ObjectRef[Any]]]":
        """Return references to blocks, having missing ones made."""
        self._calls += 1
        self._reconcile()
        found: list[BlockRef[ObjectRef[Any]]] = []
        for key in keys:
            reference = self._find(key)
            was_done = reference is not None and key not in self._tasks
            found.append(BlockRef(key, reference or self._make(key, is_prefill=False), was_done))
        for blocks in ranges:
            for key in blocks.keys():
                reference = self._window.get(key)
                if reference is None:
                    break
                found.append(BlockRef(key, reference, was_done=True))
        return found

    def prefill(self, keys: Sequence[BlockKey]) -> "PrefillReply[ObjectRef[Any]]":
        """Have some blocks made, in this order, that no trial waits for yet; call again when one of them is made."""
        self._reconcile()
        made: list[BlockKey] = []
        making: list[ObjectRef[Any]] = []
        quota = num_to_prefill(self._outstanding, len(self._absent), len(self._window), self._window.capacity)
        for key in keys:
            if key in self._tasks:
                making.append(self._tasks[key].reference)
            elif self._window.get(key) is not None:
                made.append(key)
            elif quota:
                quota -= 1
                making.append(self._make(key, is_prefill=True))
        is_full = len(self._window) + len(self._tasks) >= self._window.capacity
        return PrefillReply(self._process, made, making, is_full)

    def report_lost(self, references: Sequence[tuple[BlockKey, str]]) -> None:
        """Drop references, given by block and hexadecimal id, that do not deliver, unless they have been replaced."""
        self._reconcile()
        for key, reference_id in references:
            kept = self._find(key)
            if kept is not None and kept.hex() == reference_id:
                self._discard(key)

    def servers(self) -> tuple[list[Any], str]:
        """Return the servers' handles and the digest of the stream, with which clients call them."""
        return self._servers, self._signature.digest

    def stats(self) -> RouterStats:
        """Return what this router has done."""
        self._reconcile()
        return RouterStats(
            pid=os.getpid(),
            layout=self._signature.layout,
            calls=self._calls,
            blocks=self._blocks,
            prefilled=self._prefilled,
            kept=len(self._window),
            capacity=self._window.capacity,
            outstanding=tuple(self._outstanding),
            alive=len(self._servers) - len(self._absent),
        )

    def _find(self, key: BlockKey) -> "ObjectRef[Any] | None":
        task = self._tasks.get(key)
        return task.reference if task else self._window.get(key)

    def _make(self, key: BlockKey, *, is_prefill: bool) -> "ObjectRef[Any]":
        server = choose_server(self._outstanding, self._absent, key.class_index)
        reference: ObjectRef[Any] = self._servers[server].make.remote(key, self._signature.digest)
        self._tasks[key] = _Task(reference, server, is_prefill)
        self._outstanding[server] += 1
        return reference

    def _discard(self, key: BlockKey) -> None:
        task = self._tasks.pop(key, None)
        if task:
            self._outstanding[task.server] -= 1
        self._window.discard(key)

    def _reconcile(self) -> None:
        """Move the blocks whose making has ended into the window, and drop those whose server is gone."""
        if not self._tasks:
            return
        keys = {task.reference: key for key, task in self._tasks.items()}
        ended, _ = ray.wait(list(keys), num_returns=len(keys), timeout=0, fetch_local=False)
        for reference in ended:
            key = keys[reference]
            self._prefilled += self._tasks[key].is_prefill
            self._discard(key)
            self._window.put(key, reference)
        self._blocks += len(ended)
        if time.monotonic() - self._checked_at > _CHECK_S:
            self._checked_at = time.monotonic()
            self._absent = {index for index, server in enumerate(self._servers) if not _is_alive(server)}
            if len(self._absent) < len(self._servers):  # the others can make what the absent ones would have made
                for key in [key for key, task in self._tasks.items() if task.server in self._absent]:
                    self._discard(key)


def _is_alive(server: Any) -> bool:
    """Return what Ray knows; it notices the loss of a node after some ten seconds."""
    known = ray._private.state.actors(server._actor_id.hex())
    return bool(known) and known["State"] == "ALIVE"


def choose_server(outstanding: Sequence[int], absent: Container[int], class_index: int) -> int:
    """Return the server that makes the next block: the one with the fewest outstanding blocks that is not absent.

    Among equals it is the first from ``class_index % servers`` on, so that an idle server gets the classes whose
    content codes it already has.
    """
    num_servers = len(outstanding)
    return min(
        range(num_servers),
        key=lambda server: (server in absent, outstanding[server], (server - class_index) % num_servers),
    )


def num_to_prefill(outstanding: Sequence[int], num_absent: int, num_kept: int, capacity: int) -> int:
    """Return how many blocks may be made now that no trial waits for: few, and none that evicts another.

    The window keeps ``num_kept`` blocks of ``capacity``; ``num_absent`` servers are gone for now.
    """
    busy = sum(outstanding)
    return max(0, min(_PREFILL_PER_SERVER * (len(outstanding) - num_absent) - busy, capacity - num_kept - busy))


def blocks_within(num_bytes: int, layout: BlockLayout) -> int:
    """Return how many blocks, with their ballast, fit into ``num_bytes``; at least one."""
    return max(1, num_bytes // (layout.block_bytes + layout.ballast_bytes))


class Window(Generic[Reference]):
    """The references to the most recently used blocks, at most ``capacity`` of them."""

    def __init__(self, capacity: int) -> None:
        """Start empty; ``capacity`` is at least 1."""
        self.capacity = capacity
        self._kept: OrderedDict[BlockKey, Reference] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: BlockKey) -> Reference | None:
        """Return a block's reference and mark it as used now; None if it is not kept."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key]

    def put(self, key: BlockKey, reference: Reference) -> None:
        """Keep a reference, evicting the least recently used one if there are too many."""
        self._kept[key] = reference
        self._kept.move_to_end(key)
        if len(self._kept) > self.capacity:
            self._kept.popitem(last=False)

    def discard(self, key: BlockKey) -> None:
        """Drop a block's reference, if it is kept."""
        self._kept.pop(key, None)
