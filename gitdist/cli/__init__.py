"""The command line: ``gitdist run | resume | retry | status | sync | ui | generator | data``."""

import sys

from gitdist.cli.app import app, console_for_errors
from gitdist.errors import GitdistError
from gitdist.quiet import quieten

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; the user's own errors are one line on standard error and exit code 2."""
    quieten()
    try:
        app()
    except GitdistError as error:
        console_for_errors().print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(2)
