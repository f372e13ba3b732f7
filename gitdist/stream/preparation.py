"""Making blocks ahead while servers are idle: a few at a time, and only as long as somebody asks for it.

    plan --the next keys--> router.prepare() --> there already: struck off the plan
                                                 being made:    waited for, until one is there or a request comes
                                                 servers busy:  a pause, until it is over or a request comes
                                                 window full:   the plan is dropped

No image comes here. The next few blocks are asked for only after some of the last came, so a client that dies leaves
the servers with what they were just making.
"""

import threading
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

    def __bool__(self) -> bool:
        """Tell whether anything is left to be made."""
        return bool(self._plan)

    def replace(self, keys: Iterable[BlockKey]) -> None:
        """Plan these blocks, in this order, and no others."""
        self._plan = dict.fromkeys(keys)

    def strike(self, keys: Iterable[BlockKey]) -> None:
        """Take off the plan what is there, or is asked for in another way."""
        for key in keys:
            self._plan.pop(key, None)

    def step(self) -> None:
        """Have some blocks made and wait for one of them; returns soon where it is interrupted.

        Raises:
            StreamError: the router is gone.
        """
        with self._changed:
            keys = list(islice(self._plan, _AT_ONCE))
        answer: Prepared[ObjectRef[Any]] = self._connection.call("prepare", keys)
        with self._changed:
            self.strike(answer.there)
            if answer.full:
                self._plan.clear()
            elif not answer.there and not answer.making:
                self._changed.wait_for(self._interrupted, timeout=_BUSY_S)
        if answer.making:
            self._wait_for_one(answer.making)

    def _wait_for_one(self, references: "Sequence[ObjectRef[Any]]") -> None:
        while not self._interrupted():
            if ray.wait(list(references), num_returns=1, timeout=_ROUND_S, fetch_local=False)[0]:
                return
