"""Polls a running stream's actors without waiting for any of them.

    poll() --> stats() of the router and of each server, unless its last answer is still to come
           <-- the answers since the last poll, and those within a moment from now; of the others, their last answer

A server answers while it makes blocks. A call to a killed process is answered once Ray has restarted it; at most one
call to each actor is open, so a silent actor does not delay the figures of the others.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError

from gitdist.stream.blocks import MakerStats
from gitdist.stream.router import RouterStats
from gitdist.stream.server import STATS_GROUP, ServerStats

_ROUTER = -1  # its index; servers count from 0
_SILENT_S = 30.0  # a server without an answer for this long is taken to be idle


@dataclass(frozen=True)
class ServerThroughput:
    """Images that one server generates per second, and the share of its time that it generates, 0 to 1."""

    images_per_s: float
    utilisation: float


@dataclass(frozen=True, kw_only=True)
class StreamSnapshot:
    """The state of a stream."""

    images_per_s: float  # of all servers together
    utilisation: float  # mean over the servers; a silent one counts as idle
    window_blocks: int  # blocks in the router's window
    window_capacity: int  # blocks that fit into it
    num_servers: int
    num_answering: int  # servers that have answered lately


class StatsPoller:
    """Polls one stream; for one thread."""

    def __init__(self, router: Any, servers: Sequence[Any], silent_s: float = _SILENT_S) -> None:
        """Poll the actors with these handles; a server that is silent for ``silent_s`` counts as idle."""
        calls = [router.stats, *(server.stats.options(concurrency_group=STATS_GROUP) for server in servers)]
        self._calls = dict(enumerate(calls, start=_ROUTER))
        self._open: dict[int, ObjectRef[Any]] = {}
        self._router: RouterStats | None = None
        self._servers: dict[tuple[int, int], ServerStats] = {}  # the last answer by index and process
        self._throughputs: dict[int, tuple[ServerThroughput, float]] = {}  # with the time of the answer, monotonic
        self._silent_s = silent_s

    def poll(self, wait_s: float) -> StreamSnapshot | None:
        """Return the stream's state, waiting up to ``wait_s`` for answers; None before the router's first answer."""
        self._collect(0.0)  # answers to the last poll
        for index, call in self._calls.items():
            if index not in self._open:
                self._open[index] = call.remote()
        self._collect(wait_s)
        if self._router is None:
            return None
        since = time.monotonic() - self._silent_s
        recent = {index: found for index, (found, answered_at) in self._throughputs.items() if answered_at >= since}
        throughputs = [recent.get(index) for index in self._calls if index != _ROUTER]
        return snapshot(throughputs, self._router.kept, self._router.capacity)

    def done(self) -> list[MakerStats]:
        """Return the work of each server process, including those that are gone, as of its last answer."""
        return [stats.done for stats in self._servers.values()]

    def _collect(self, wait_s: float) -> None:
        if not self._open:
            return
        index_of = {reference: index for index, reference in self._open.items()}
        for reference in ray.wait(list(index_of), num_returns=len(index_of), timeout=wait_s)[0]:
            index = index_of[reference]
            del self._open[index]
            try:
                answer = ray.get(reference)
            except RayError:  # the process is gone; the next poll asks the one that replaces it
                continue
            if index == _ROUTER:
                self._router = answer
            else:
                process = (index, answer.pid)
                self._throughputs[index] = (throughput(self._servers.get(process), answer), time.monotonic())
                self._servers[process] = answer


def throughput(before: ServerStats | None, now: ServerStats) -> ServerThroughput:
    """Return a server's throughput since an earlier answer of its process, else since its start; by its own clock."""
    images, generating_s, elapsed_s = now.done.images, now.done.generating_s, now.up_s
    if before is not None and before.pid == now.pid and before.up_s < now.up_s:
        images -= before.done.images
        generating_s -= before.done.generating_s
        elapsed_s -= before.up_s
    if elapsed_s <= 0:
        return ServerThroughput(0.0, 0.0)
    return ServerThroughput(images / elapsed_s, min(1.0, generating_s / elapsed_s))


def snapshot(
    throughputs: Sequence[ServerThroughput | None], window_blocks: int, window_capacity: int
) -> StreamSnapshot:
    """Return a stream's state from the throughput of each server, None for a silent one, and the router's window."""
    answering = [server for server in throughputs if server is not None]
    return StreamSnapshot(
        images_per_s=sum(server.images_per_s for server in answering),
        utilisation=sum(server.utilisation for server in answering) / len(throughputs),
        window_blocks=window_blocks,
        window_capacity=window_capacity,
        num_servers=len(throughputs),
        num_answering=len(answering),
    )
