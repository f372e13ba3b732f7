"""The Ray actor that knows where every block is: block key -> object reference.

    clients -- refs(keys) --> outstanding, or in the window        -> the reference that is there
                              neither -> make() of the idlest server -> a new reference
            -- prepare(keys) --> the same for a few of them, as long as servers are idle and the window has room
            -- lost(...)  --> the reference is forgotten, so that the next refs() has the block made again

Nobody waits in here: a reference is handed out before its block exists, and clients wait for the reference itself.
Images never pass through: they go from the server's object store to the client's. At most what clients asked for is
outstanding, and each client asks a bounded number of blocks ahead. Blocks that are made ahead do not pile up before
those that somebody waits for: at most two a server are outstanding when one is given out. What a server has yet to make
when its process or node is gone is made by another one; it answers with the same bytes.
"""

import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray import ObjectRef

from gitdist.stream.keys import BlockKey, Layout, Product, Span
from gitdist.stream.metrics import RouterMetrics
from gitdist.stream.names import parse_server
from gitdist.stream.routing import Found, Prepared, Window, blocks_within, choose_server, num_to_prepare

_LOOK_S = 2.0  # between two looks at which servers live, while blocks are made


@dataclass(frozen=True, kw_only=True)
class RouterStats:
    """A router's process, the layout of its blocks and what it has done since it started.

    Attributes:
        pid: process id of the router.
        stream: name of the stream, as in those of its actors.
        calls: calls of ``refs``.
        layout: block size and image shape.
        blocks: blocks whose making has ended.
        images: the images in them.
        prepared: blocks given out to be made ahead, that nobody waited for.
        regenerated: blocks given out to be made again after they were lost or had left the window.
        kept: blocks in the window.
        capacity: of the window, in blocks.
        outstanding: blocks that each server has yet to make.
        alive: servers whose process was there at the last look.
    """

    pid: int
    stream: str
    calls: int
    layout: Layout
    blocks: int
    images: int
    prepared: int
    regenerated: int
    kept: int
    capacity: int
    outstanding: tuple[int, ...]
    alive: int


class _Task(NamedTuple):
    reference: "ObjectRef[Any]"
    server: int


class Router:
    """Hands out the references of blocks and has each block made once, whoever asks; run as a Ray actor."""

    def __init__(self, servers: Sequence[str], product: Product, window_bytes: int) -> None:
        """Route to the given server actors.

        Args:
            servers: names of the GeneratorServer actors; handles would not outlive a restart of the router.
            product: what all of them make.
            window_bytes: bytes of blocks kept for clients to come, ballast included.
        """
        self._servers = [ray.get_actor(name) for name in servers]
        self._stream, _ = parse_server(servers[0])
        self._life = secrets.token_hex(8)
        self._layout, self._block_key = product.layout, product.block_key
        self._window: Window[ObjectRef[Any]] = Window(blocks_within(window_bytes, self._layout))
        self._metrics = RouterMetrics(self._stream, self._window.capacity, len(servers))
        self._tasks: dict[BlockKey, _Task] = {}
        self._outstanding = [0] * len(self._servers)
        self._absent: set[int] = set()
        self._looked = time.monotonic()
        self._given_out: set[BlockKey] = set()
        self._calls = 0
        self._blocks = 0
        self._prepared = 0
        self._regenerated = 0

    def refs(self, keys: Sequence[BlockKey], spans: Sequence[Span] = ()) -> "list[Found[ObjectRef[Any]]]":
        """Return references to blocks, having those made that are not there.

        Args:
            keys: the blocks to deliver, most urgent first.
            spans: blocks to deliver as well as far as they are made; of each span, those before the first missing one.

        Returns:
            the references, and whether the makings behind them had ended, well or not.
        """
        self._calls += 1
        self._settle()
        found = [self._found(key) for key in keys]
        for span in spans:
            for key in span.keys():
                reference = self._window.get(key)
                if reference is None:
                    break
                found.append(Found(key, reference, ended=True))
        self._metrics.note(len(self._window), self._outstanding)
        return found

    def prepare(self, keys: Sequence[BlockKey]) -> "Prepared[ObjectRef[Any]]":
        """Have some blocks made that nobody waits for yet; ask again when one of them is there.

        Args:
            keys: the blocks, the first to be made first.
        """
        self._settle()
        there: list[BlockKey] = []
        making: list[ObjectRef[Any]] = []
        room = num_to_prepare(self._outstanding, len(self._absent), len(self._window), self._window.capacity)
        for key in keys:
            if key in self._tasks:
                making.append(self._tasks[key].reference)
            elif self._window.get(key) is not None:
                there.append(key)
            elif room:
                room -= 1
                self._prepared += 1
                making.append(self._make(key))
        self._metrics.note(len(self._window), self._outstanding)
        full = len(self._window) + len(self._tasks) >= self._window.capacity
        return Prepared(self._life, there, making, full)

    def lost(self, references: Sequence[tuple[BlockKey, str]]) -> None:
        """Forget references that do not deliver.

        Args:
            references: block and hexadecimal id of the reference; one that was replaced meanwhile is left alone.
        """
        self._settle()
        for key, reference_id in references:
            kept = self._find(key)
            if kept is not None and kept.hex() == reference_id:
                self._forget(key)

    def stats(self) -> RouterStats:
        """Return what this router has done."""
        self._settle()
        self._metrics.note(len(self._window), self._outstanding, at_once=True)
        return RouterStats(
            pid=os.getpid(),
            stream=self._stream,
            calls=self._calls,
            layout=self._layout,
            blocks=self._blocks,
            images=self._blocks * self._layout.block_size,
            prepared=self._prepared,
            regenerated=self._regenerated,
            kept=len(self._window),
            capacity=self._window.capacity,
            outstanding=tuple(self._outstanding),
            alive=len(self._servers) - len(self._absent),
        )

    def _found(self, key: BlockKey) -> "Found[ObjectRef[Any]]":
        reference = self._find(key)
        ended = reference is not None and key not in self._tasks
        return Found(key, reference or self._make(key), ended)

    def _find(self, key: BlockKey) -> "ObjectRef[Any] | None":
        task = self._tasks.get(key)
        return task.reference if task else self._window.get(key)

    def _make(self, key: BlockKey) -> "ObjectRef[Any]":
        server = choose_server(self._outstanding, self._absent, key.class_index)
        reference: ObjectRef[Any] = self._servers[server].make.remote(key, self._block_key)
        self._tasks[key] = _Task(reference, server)
        self._outstanding[server] += 1
        self._regenerated += key in self._given_out
        self._given_out.add(key)
        return reference

    def _forget(self, key: BlockKey) -> None:
        task = self._tasks.pop(key, None)
        if task:
            self._outstanding[task.server] -= 1
        self._window.drop(key)

    def _settle(self) -> None:
        """Move the blocks whose making has ended into the window, and forget those whose server is gone."""
        if not self._tasks:
            return
        keys = {task.reference: key for key, task in self._tasks.items()}
        ended, _ = ray.wait(list(keys), num_returns=len(keys), timeout=0, fetch_local=False)
        for reference in ended:
            key = keys[reference]
            self._forget(key)
            self._window.put(key, reference)
        self._blocks += len(ended)
        if time.monotonic() - self._looked > _LOOK_S:
            self._look()

    def _look(self) -> None:
        """Find out which servers are gone for now, and take from those what others can make meanwhile."""
        self._looked = time.monotonic()
        self._absent = {place for place, server in enumerate(self._servers) if not _is_alive(server)}
        if len(self._absent) < len(self._servers):
            for key in [key for key, task in self._tasks.items() if task.server in self._absent]:
                self._forget(key)


def _is_alive(server: Any) -> bool:
    """Tell what Ray knows; that a node is gone it notices after some ten seconds."""
    known = ray._private.state.actors(server._actor_id.hex())
    return bool(known) and known["State"] == "ALIVE"
