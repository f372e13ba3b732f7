"""Questions that may hang, to a dead network disk for example, each with a time limit."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")
_NAME = "doctor-question"


class NoAnswerError(Exception):
    """A question was not answered within its time limit, or failed."""


def answer_within(limit_s: float, question: Callable[[], _T]) -> _T:
    """Return what ``question`` returns, or raise what it raises; it runs on a daemon thread.

    Raises:
        NoAnswerError: it takes longer than ``limit_s`` seconds. Its thread is abandoned.
    """
    answer: Future[_T] = Future()

    def run() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:  # raised again in the calling thread
            answer.set_exception(error)

    thread = threading.Thread(target=run, name=_NAME, daemon=True)
    thread.start()
    thread.join(limit_s)
    if thread.is_alive():
        raise NoAnswerError(f"no answer within {limit_s:g} s")
    return answer.result()


def any_abandoned() -> bool:
    """Tell whether an abandoned question still hangs; then only ``os._exit`` ends the program at once."""
    return any(thread.name == _NAME and thread.is_alive() for thread in threading.enumerate())
