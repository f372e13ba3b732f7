"""Looks at a running stream from outside, without waiting for anyone.

    look() --> stats() of the router and of each server, unless one's last answer is still to come
           <-- what has come since the last look, and within a moment now; of the others what they said last

A server answers while it makes blocks. A question to a process that was killed waits until another is there; so at most
one question to each is under way, and nobody's silence keeps the others from being seen.
"""

import time
from collections.abc import Sequence
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import RayError

from gitdist.stream.blocks import MakerStats
from gitdist.stream.pace import Pace, Sighting, pace_of, sight
from gitdist.stream.router import RouterStats
from gitdist.stream.server import BESIDE, ServerStats

_ROUTER = -1  # its place, before those of the servers
_SILENT_S = 30.0  # a server that has not answered for so long is taken not to answer


class Lookout:
    """One observer of a stream's actors; for one thread."""

    def __init__(self, router: Any, servers: Sequence[Any], silent_s: float = _SILENT_S) -> None:
        """Observe a stream by the handles of its actors; a server silent for ``silent_s`` does not answer."""
        calls = [router.stats, *(server.stats.options(concurrency_group=BESIDE) for server in servers)]
        self._calls = dict(enumerate(calls, start=_ROUTER))
        self._asked: dict[int, ObjectRef[Any]] = {}
        self._router: RouterStats | None = None
        self._servers: dict[tuple[int, int], ServerStats] = {}  # by place and process, when last heard of
        self._paces: dict[int, tuple[Pace, float]] = {}  # and when it was heard of, of time.monotonic
        self._silent_s = silent_s

    def look(self, wait_s: float) -> Sighting | None:
        """Return what can be seen; None before the router's first answer.

        Args:
            wait_s: for how long answers are waited for.
        """
        self._listen(0.0)  # to what was asked at the last look
        for place, call in self._calls.items():
            if place not in self._asked:
                self._asked[place] = call.remote()
        self._listen(wait_s)
        if self._router is None:
            return None
        return sight(self._lately(), self._router.kept, self._router.capacity)

    def done(self) -> list[MakerStats]:
        """Return what each server's process, those that are gone among them, had done when it was last heard of."""
        return [stats.done for stats in self._servers.values()]

    def _listen(self, wait_s: float) -> None:
        asked = list(self._asked.values())
        ended = set(ray.wait(asked, num_returns=len(asked), timeout=wait_s)[0]) if asked else set()
        for place in [place for place, reference in self._asked.items() if reference in ended]:
            self._hear(place, self._asked.pop(place))

    def _hear(self, place: int, reference: "ObjectRef[Any]") -> None:
        try:
            answer = ray.get(reference)
        except RayError:  # it is gone; whoever takes its place is asked at the next look
            return
        if place == _ROUTER:
            self._router = answer
            return
        process = (place, answer.pid)
        self._paces[place] = (pace_of(self._servers.get(process), answer), time.monotonic())
        self._servers[process] = answer

    def _lately(self) -> list[Pace | None]:
        since = time.monotonic() - self._silent_s
        heard = [self._paces.get(place) for place in self._calls if place != _ROUTER]
        return [found[0] if found and found[1] >= since else None for found in heard]
