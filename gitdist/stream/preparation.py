"""Making blocks ahead while servers are idle: a few at a time, and only as long as somebody asks for it.

    plan --the next keys--> router.prepare() --> there already: set aside
                                                 being made:    waited for, until one is there or a request comes
                                                 servers busy:  a pause, until it is over or a request comes
                                                 window full, or all there: a long pause, then a look at the router
    another router than before: its blocks went with it, so what was set aside is planned again

No image comes here. The next few blocks are asked for only after some of the last came, so a client that dies leaves
the servers with what they were just making. A full window seldom gets room again: what is made ahead pushes nothing
out, and what is asked for takes the place of another block; but a new router's is empty.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

import ray
from ray import ObjectRef

from gitdist.stream.connection import Connection
from gitdist.stream.keys import BlockKey
from gitdist.stream.routing import Prepared

_AT_ONCE = 64  # blocks that the router looks at in one call; most of them are there where another client is ahead
_BUSY_S = 0.2  # before busy servers are asked again
_LOOK_S = 2.0  # before the router is asked again that has no room, or all blocks
_ROUND_S = 0.1  # requests wait at most so long for blocks that are being made


class Preparation:
    """A client's plan of blocks to be made; all but ``step`` is for callers that hold ``changed``."""

    def __init__(self, connection: Connection, changed: threading.Condition, interrupted: Callable[[], bool]) -> None:
        """Begin with an empty plan.

        Args:
            connection: to the router.
            changed: guards the plan and whatever ``interrupted`` reads.
            interrupted: tells that there is something more urgent to do.
        """
        self._connection = connection
        self._changed = changed
        self._interrupted = interrupted
        self._plan: dict[BlockKey, None] = {}
        self._there: dict[BlockKey, None] = {}  # as ``_router`` said
        self._router = ""
        self._next_at = 0.0  # monotonic clock

    def __bool__(self) -> bool:
        """Tell whether there are blocks to be made, or to be made again should they get lost."""
        return bool(self._plan or self._there)

    def replace(self, keys: Iterable[BlockKey]) -> None:
        """Plan these blocks, in this order, and no others."""
        self._plan, self._there = dict.fromkeys(keys), {}
        self._next_at = 0.0

    def strike(self, keys: Iterable[BlockKey]) -> None:
        """Take off the plan what is asked for in another way."""
        for key in keys:
            self._plan.pop(key, None)
            self._there.pop(key, None)

    def step(self) -> None:
        """Pause, or have some blocks made and wait for one of them; returns soon where it is interrupted.

        Raises:
            StreamError: the router is gone.
        """
        with self._changed:
            if self._interrupted():
                return
            if (pause_s := self._next_at - time.monotonic()) > 0:
                self._changed.wait(pause_s)
                return
            keys = list(islice(self._plan, _AT_ONCE))
        answer: Prepared[ObjectRef[Any]] = self._connection.call("prepare", keys)
        with self._changed:
            self._note(answer)
        if answer.making:
            self._wait_for_one(answer.making)

    def _note(self, answer: "Prepared[ObjectRef[Any]]") -> None:
        if answer.router != self._router:
            self._plan, self._there, self._router = self._there | self._plan, {}, answer.router
        for key in answer.there:
            if key in self._plan:
                del self._plan[key]
                self._there[key] = None
        if answer.making or (answer.there and self._plan):
            pause_s = 0.0
        else:
            pause_s = _LOOK_S if answer.full or not self._plan else _BUSY_S
        self._next_at = time.monotonic() + pause_s

    def _wait_for_one(self, references: "Sequence[ObjectRef[Any]]") -> None:
        while not self._interrupted():
            if ray.wait(list(references), num_returns=1, timeout=_ROUND_S, fetch_local=False)[0]:
                return
