"""The command line: ``gitdist run``, ``resume``, ``retry``, ``status``, ``sync``, ``report`` and the others."""

# ruff: noqa: E402
import sys

from gitdist.cli.shadowing import explain_shadowing

sys.excepthook = explain_shadowing  # before the other imports, which may fail

import atexit
import gc
import io
from typing import NoReturn

from rich.console import Console

from gitdist.cli.app import app, refuse_removed
from gitdist.cli.console import print_line
from gitdist.cli.errors import error_message
from gitdist.errors import GitdistError
from gitdist.logging import silence_libraries
from gitdist.study.cluster.signals import STOPPED, stop_on_signals, stop_requested

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; the user's own errors are one line on standard error and exit code 2."""
    stop_on_signals()
    silence_libraries()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the terminal's encoding lacks is not worth an error
    # Imported modules are never freed. Searching all of them for garbage takes a fifth of the start (3.9 s, without
    # 3.1 s) and most of the end (1.4 s, without 0.2 s).
    gc.set_threshold(10_000, 20, 20)
    atexit.register(gc.freeze)
    try:
        refuse_removed(sys.argv[1:])
        app()
    except Exception as error:
        if stop_requested():  # processes that it needs may have been stopped together with this one
            sys.exit(STOPPED)
        if isinstance(error, GitdistError):
            _end(error_message(error))
        if isinstance(error, OSError) and error.filename is not None:
            _end(f"{error.filename} cannot be read or written ({error.strerror}); correct this, then try again")
        raise


def _end(message: str) -> NoReturn:
    print_line(Console(stderr=True), f"error: {message}", style="red")
    sys.exit(2)
