"""Probes that may hang, on a dead network disk say, each waited for no longer than its limit."""

import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")
_NAME = "doctor-probe"


class OutOfPatience(Exception):
    """A probe has not answered within its limit; it is left to itself."""


def within(limit_s: float, probe: Callable[[], _T]) -> _T:
    """Return what ``probe`` returns, or raise what it raises.

    Args:
        limit_s: seconds to wait for it.
        probe: runs on a thread that nobody waits for at the end of the program.

    Raises:
        OutOfPatience: it takes longer.
    """
    returned: list[_T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            returned.append(probe())
        except BaseException as error:  # whatever it is, it goes to the one who waits
            raised.append(error)

    thread = threading.Thread(target=run, name=_NAME, daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise OutOfPatience(f"no answer within {limit_s:g} s")
    if raised:
        raise raised[0]
    return returned[0]


def any_left() -> bool:
    """Tell whether a probe that was given up still hangs; such a program ends by ``os._exit`` alone."""
    return any(thread.name == _NAME and thread.is_alive() for thread in threading.enumerate())
