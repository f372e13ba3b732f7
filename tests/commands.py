"""Runs gitdist's commands, each in a process of its own that is forked from one with all libraries imported.

Importing them takes seconds, and the tests run hundreds of commands. Where a test needs a handle on the running
process, or a fresh interpreter, it starts ``python -m gitdist`` itself.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

SHARED_RAY = "GITDIST_TESTS_RAY"  # environment variable with the address of the Ray that commands join
_COMMANDS = ("data", "doctor", "export", "generator", "quality", "report", "run", "status", "store", "tracking")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__, *(f"gitdist.cli.{name}" for name in _COMMANDS), "gitdist.study.run"])


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would send a study elsewhere."""
    own = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")}
    shared = {"RAY_ADDRESS": own[SHARED_RAY]} if SHARED_RAY in own else {}
    return {**own, **shared, **more}


def gitdist(*arguments: object) -> list[str]:
    """The command line of a command."""
    return [sys.executable, "-m", "gitdist", *map(str, arguments)]


def call(
    command: Sequence[str], *, cwd: Path | None = None, timeout: float = 400, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of ``gitdist`` to its end."""
    assert list(command[:3]) == gitdist()
    with tempfile.TemporaryDirectory(prefix="gitdist-command-") as directory:
        outputs = [Path(directory) / name for name in ("stdout", "stderr")]
        arguments = (list(command[3:]), environment(**env), cwd or Path.cwd(), outputs)
        process = _context.Process(target=_run, args=arguments)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout, *(output.read_text() for output in outputs))
        out, err = (output.read_text() if output.exists() else "" for output in outputs)
        return subprocess.CompletedProcess(command, process.exitcode, out, err)


def _run(arguments: list[str], env: Mapping[str, str], cwd: Path, outputs: Sequence[Path]) -> None:
    from gitdist.cli import main

    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for descriptor, output in enumerate(outputs, start=1):
        os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    sys.argv = ["gitdist", *arguments]
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
