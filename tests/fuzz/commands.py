"""Runs a command of gitdist in this process and checks what must hold for any input.

A test generates inputs with hypothesis and calls ``check_command`` on each. The number of inputs is fixed, and they are
the same in every run. For a campaign by hand, the environment variable GITDIST_FUZZ_MINUTES says how long random inputs
are tried by each test: GITDIST_FUZZ_MINUTES=40 pytest tests/fuzz/test_study_files.py --timeout 0 -n 0 -s
"""

import contextlib
import io
import os
import re
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from gitdist.cli import main
from gitdist.study.cluster.signals import interruptible

LIMIT_S = 60
LONGEST_LINE = 2000  # characters
MINUTES = float(os.environ.get("GITDIST_FUZZ_MINUTES", 0))
# Words of pydantic's own messages, and of Python's reports.
INTERNALS = re.compile(
    r"Input should|Value error|Assertion failed|validation error|pydantic|tagged-union|union_tag|literal_error"
    r"|function-(?:after|before|wrap|plain)|\[type=|Traceback|JSON compliant|<class '|object at 0x"
)
# What Python itself shows to nobody; pytest makes errors of them.
_HIDDEN_WARNINGS = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


class Hang(BaseException):
    """A command ran longer than the limit. No handler of a command catches it."""


def check_command(*arguments: object, cwd: Path | None = None) -> Outcome:
    """Run a command; raise AssertionError unless it did what it should, or refused its input in one plain line."""
    outcome = run_command(*arguments, cwd=cwd)
    shown = f"gitdist {' '.join(map(str, arguments))}: exit code {outcome.code}\n{outcome.out}{outcome.err}"
    assert outcome.code in (0, 2), shown
    found = INTERNALS.search(outcome.out + outcome.err)
    assert not found, f"{found[0]!r} is shown: {shown}"
    if outcome.code == 2:
        lines = outcome.err.removesuffix("\n").split("\n")
        assert len(lines) == 1, f"not one line: {shown}"
        assert lines[0].startswith("error: ") and lines[0].isprintable(), f"not an error line of plain text: {shown}"
        assert len(lines[0]) <= LONGEST_LINE, f"{len(lines[0])} characters: {shown}"
    return outcome


def run_command(*arguments: object, cwd: Path | None = None) -> Outcome:
    """Run a command of gitdist in this process; an exception that it raises counts as exit code 1."""
    # As with Python's own streams: what UTF-8 cannot express is an error on one, and escaped on the other.
    out = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict", newline="", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace", newline="", write_through=True)
    code: object = 0
    argv = sys.argv
    sys.argv = ["gitdist", *map(str, arguments)]
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd or Path.cwd()),
        _pythons_own_warnings(),
    ):
        try:
            # ``main`` handles signals until its process ends; the block gives them back.
            with _time_limit(), interruptible():
                main()
        except SystemExit as end:
            code = end.code or 0
        except Hang as hang:
            raise AssertionError(f"gitdist {' '.join(map(str, arguments))}: {hang}") from None
        except Exception:
            traceback.print_exc(file=err)
            code = 1
        finally:
            sys.argv = argv
    texts = (stream.buffer.getvalue().decode("utf-8") for stream in (out, err))  # type: ignore[attr-defined]
    return Outcome(code if isinstance(code, int) else 1, *texts)


def check_inputs(inputs: SearchStrategy[T], check: Callable[[T], object], *, number: int) -> None:
    """Call ``check`` on that many generated inputs, or on random ones for GITDIST_FUZZ_MINUTES."""
    count = 0

    def counted(value: Any) -> None:
        nonlocal count
        count += 1
        check(value)

    test = settings(
        max_examples=number,
        derandomize=not MINUTES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )(given(inputs)(counted))
    end = time.monotonic() + MINUTES * 60
    try:
        test()
        while time.monotonic() < end:
            test()
    finally:
        print(f"{count} inputs")


@contextlib.contextmanager
def _pythons_own_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        for category in _HIDDEN_WARNINGS:
            warnings.simplefilter("ignore", category)
        yield


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    """Raise Hang after the limit; the alarm of a test's own limit is set again afterwards."""

    def ring(*_: object) -> None:
        raise Hang(f"still running after {LIMIT_S} s")

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    delay, interval = signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, handler)
        left = max(0.001, delay - (time.monotonic() - started)) if delay else 0.0
        signal.setitimer(signal.ITIMER_REAL, left, interval)
