"""A client's line to the router: calls that outlast the router's restarts, and the stream's errors in one line."""

import threading
import time
from typing import Any

import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError, RayTaskError

from gitdist.errors import StreamError

_PAUSE_S = 0.2  # before what failed is tried again


class Connection:
    """Calls to a stream's router; for one thread at a time."""

    def __init__(self, router: Any, patience_s: float, closed: threading.Event) -> None:
        """Find the router.

        Args:
            router: its name or handle.
            patience_s: time without an answer after which the stream has failed.
            closed: ends every wait when it is set.

        Raises:
            StreamError: there is no such router.
        """
        self._router = _find_router(router)
        self._patience_s, self._closed = patience_s, closed

    def patience(self) -> "Patience":
        """Return new patience with one kind of trouble."""
        return Patience(self._patience_s, self._closed)

    def call(self, verb: str, *arguments: Any) -> Any:
        """Call the router, again and again while it is being restarted.

        Raises:
            StreamError: the router is gone, does not answer, or the client was closed.
        """
        patience = self.patience()
        while True:
            reference = getattr(self._router, verb).remote(*arguments)
            try:
                while not self._closed.is_set():
                    try:
                        return ray.get(reference, timeout=1.0)
                    except GetTimeoutError as error:
                        patience.endure(error, pause_s=0.0)
                raise closed_error()
            except (RayTaskError, ActorDiedError) as error:
                raise stream_error("reach its router", error) from error
            except RayError as error:
                patience.endure(error)


class Patience:
    """How long one kind of trouble is endured, from its first sign to the next success."""

    def __init__(self, limit_s: float, closed: threading.Event) -> None:
        """Begin without trouble; ``closed`` ends every pause."""
        self.limit_s, self._closed = limit_s, closed
        self._since: float | None = None

    def endure(self, error: RayError, pause_s: float = _PAUSE_S) -> None:
        """Pause, or raise StreamError where the trouble has lasted too long."""
        if self.ends():
            raise stream_error(f"deliver within {self.limit_s:g} s", error) from error
        self._closed.wait(pause_s)

    def ends(self) -> bool:
        """Note that there is trouble, and tell whether it has lasted too long."""
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        return now - self._since > self.limit_s

    def renew(self) -> None:
        """Forget the trouble."""
        self._since = None


def stream_error(task: str, error: Exception) -> StreamError:
    """Return the one-line error for a task of the stream that failed with ``error``, which becomes its cause."""
    cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, Exception) else error
    reason = " ".join(str(cause).split()) or "no message"
    failure = StreamError(
        f"the stream must {task}, but {type(cause).__name__}: {reason}; mend the cause and run the study again"
    )
    failure.__cause__ = cause
    return failure


def closed_error() -> StreamError:
    """Return the error of those who use a client that was closed."""
    return StreamError("blocks come from an open stream, but this client is closed; connect a new one")


def _find_router(router: Any) -> Any:
    if not isinstance(router, str):
        return router
    try:
        return ray.get_actor(router)
    except ValueError as error:
        raise StreamError(f"a stream must be running, but no router is named '{router}'; launch it first") from error
