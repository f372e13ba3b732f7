"""A stream's figures for Prometheus: each process counts, and Ray exports the counts of a node's processes together.

    server: images, blocks, seconds of generating --\
    router: blocks in the window, outstanding -------> Ray in each process --> agent of the node --> /metrics over HTTP
    client: blocks fetched, seconds of waiting -----/

Nothing is counted by the image: a server counts after each block, a router once a second at most, a client with each
delivery of its prefetch thread. Ray collects without being asked, every few seconds; where no agent exports (a Ray
without its ``default`` extra), what is counted goes nowhere.
"""

import time
from dataclasses import replace
from functools import cache

from ray.util.metrics import Counter, Gauge

from gitdist.stream.blocks import MakerStats
from gitdist.stream.names import parse_server

STREAM, SERVER = "stream", "server"  # the tags: of all metrics, and of those of one server

_LATEST_S = 1.0  # a router's gauges are no older than that while it is called


class ServerMetrics:
    """What one server has done."""

    def __init__(self, name: str) -> None:
        """Count for the server actor called ``name``."""
        stream, index = parse_server(name)
        self._tags = {STREAM: stream, SERVER: str(index)}
        self._counted = MakerStats()

    def note(self, done: MakerStats) -> None:
        """Count what has been done since the last call."""
        before, self._counted = self._counted, replace(done)
        _add(_images_generated(), done.images - before.images, self._tags)
        _add(_blocks_made(), done.blocks - before.blocks, self._tags)
        _add(_generating(), done.generating_s - before.generating_s, self._tags)


class RouterMetrics:
    """What a router keeps, and what its servers have yet to make."""

    def __init__(self, stream: str, capacity: int, num_servers: int) -> None:
        """Tell of a stream; ``capacity`` is that of the window, in blocks."""
        self._stream, self._capacity = {STREAM: stream}, float(capacity)
        self._servers = [{STREAM: stream, SERVER: str(index)} for index in range(num_servers)]
        self._told = -_LATEST_S

    def note(self, num_kept: int, outstanding: list[int], *, at_once: bool = False) -> None:
        """Tell how things stand, unless that was told within the last second.

        Args:
            num_kept: blocks in the window.
            outstanding: blocks that each server has yet to make.
            at_once: tell also within the second.
        """
        now = time.monotonic()
        if now - self._told < _LATEST_S and not at_once:
            return
        self._told = now
        _window_blocks().set(num_kept, self._stream)
        _window_capacity().set(self._capacity, self._stream)
        for tags, num_blocks in zip(self._servers, outstanding, strict=True):
            _outstanding_blocks().set(num_blocks, tags)


class ClientMetrics:
    """What one client has got."""

    def __init__(self, stream: str) -> None:
        """Count for a client of a stream."""
        self._stream = {STREAM: stream}

    def note(self, num_fetched: int, waited_s: float) -> None:
        """Count blocks that arrived, and seconds that the trial has waited, since the last call."""
        _add(_blocks_fetched(), num_fetched, self._stream)
        _add(_waiting(), waited_s, self._stream)


def _add(counter: Counter, value: float, tags: dict[str, str]) -> None:
    if value > 0:  # Ray refuses to add nothing
        counter.inc(value, tags)


# Made by the process that counts, once: a class that travels to an actor takes none along.


@cache
def _images_generated() -> Counter:
    return Counter("gitdist_images_generated_total", "Images generated.", (STREAM, SERVER))


@cache
def _blocks_made() -> Counter:
    return Counter("gitdist_blocks_made_total", "Blocks of draws made.", (STREAM, SERVER))


@cache
def _generating() -> Counter:
    description = "Seconds spent generating; their rate is the server's utilisation, 0 to 1."
    return Counter("gitdist_generating_seconds_total", description, (STREAM, SERVER))


@cache
def _window_blocks() -> Gauge:
    return Gauge("gitdist_window_blocks", "Blocks that the router keeps for trials to come.", (STREAM,))


@cache
def _window_capacity() -> Gauge:
    return Gauge("gitdist_window_capacity_blocks", "Blocks that the router keeps at most.", (STREAM,))


@cache
def _outstanding_blocks() -> Gauge:
    return Gauge("gitdist_outstanding_blocks", "Blocks that a server has yet to make.", (STREAM, SERVER))


@cache
def _blocks_fetched() -> Counter:
    return Counter("gitdist_blocks_fetched_total", "Blocks that have reached trials.", (STREAM,))


@cache
def _waiting() -> Counter:
    description = "Seconds that trials have waited for blocks; their rate is the number of trials that wait."
    return Counter("gitdist_waiting_seconds_total", description, (STREAM,))
