"""The command line: ``gitdist run``, ``resume``, ``retry``, ``status``, ``sync``, ``report`` and the others."""

import sys


def main() -> None:
    """Run the command line; the user's own errors are one line on standard error and exit code 2."""
    try:
        _run()
    except BaseException as error:
        from gitdist.cli.shadowing import shadowing_file

        file = None if isinstance(error, KeyboardInterrupt) else shadowing_file(error)
        if file is None:
            raise
        print(
            f"error: {file} has the name of a module that gitdist needs, and hides it; rename it, or take its folder "
            "out of PYTHONPATH",
            file=sys.stderr,
        )
        sys.exit(2)


def _run() -> None:
    import atexit
    import gc

    from rich.console import Console

    from gitdist.cli.app import app, refuse_removed
    from gitdist.cli.console import print_line
    from gitdist.cli.errors import error_message
    from gitdist.errors import GitdistError
    from gitdist.logging import silence_libraries

    silence_libraries()
    # Imported modules are never freed. Searching all of them for garbage takes a fifth of the start (3.9 s, without
    # 3.1 s) and most of the end (1.4 s, without 0.2 s).
    gc.set_threshold(10_000, 20, 20)
    atexit.register(gc.freeze)
    try:
        refuse_removed(sys.argv[1:])
        app()
    except GitdistError as error:
        print_line(Console(stderr=True), f"error: {error_message(error)}", style="red")
        sys.exit(2)
