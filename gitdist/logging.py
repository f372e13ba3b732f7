"""Keeps the libraries' messages and telemetry off the terminal, and writes their warnings and errors to a file."""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SWITCHES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's announced default; unset, it warns of the change
    # Long messages of Ray on every lost worker and node, where they are not written to a file (``logging_to``).
    "RAY_DEDUP_LOGS_SKIP_REGEX": "retries remaining|marked dead|worker died|Raylet is terminated",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # else SIGTERM while Ray starts takes 30 s
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's own progress table
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # CSV, JSON and TensorBoard files
    "TUNE_FUNCTION_THREAD_TIMEOUT_S": "60",  # for a stopped trial to end, before its worker is used again
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours (study/cluster/signals.py)
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # snapshots of a state that is never restored
}
_PREFIXES = ("MLFLOW_", "TUNE_")  # of other variables that are set while a study runs
_DEBUGGER = "PYTHONBREAKPOINT"  # Ray sets it to its own
_LOGGERS = (
    "alembic",
    "matplotlib",
    "mlflow.store.db.utils",
    "mlflow.system_metrics",
    "optuna",
    "ray",
    "urllib3.connectionpool",
)


def silence_libraries() -> None:
    """Set the variables that the user has not set; call it before Ray or MLflow is imported."""
    for name, value in _SWITCHES.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "matplotlib", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def restoring_libraries() -> Iterator[None]:
    """At the end of the block, restore what a study sets for its libraries: variables and levels of loggers."""
    variables = _library_variables()
    try:
        with restoring_levels():
            yield
    finally:
        for name in _library_variables().keys() - variables.keys():
            del os.environ[name]
        os.environ.update(variables)


@contextmanager
def restoring_levels() -> Iterator[None]:
    """At the end of the block, restore the levels of the libraries' loggers."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _library_variables() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name in _SWITCHES or name == _DEBUGGER or name.startswith(_PREFIXES)
    }


@contextmanager
def logging_to(file: Path, show: Callable[[str], None]) -> Iterator[None]:
    """Inside the block, show this package's messages, and write warnings and errors of libraries to a file.

    The file is created and shown at its first message.
    """
    root, own, ray = (logging.getLogger(name) for name in (None, "gitdist", "ray"))
    written, shown = _LibraryLog(file, show), _Shown(show)
    own_before, ray_before = own.propagate, (ray.propagate, ray.handlers)
    root.addHandler(written)
    own.addHandler(shown)
    own.propagate, ray.propagate, ray.handlers = False, True, []
    try:
        yield
    finally:
        own.propagate, (ray.propagate, ray.handlers) = own_before, ray_before
        own.removeHandler(shown)
        root.removeHandler(written)
        with suppress(OSError):  # the disk is full
            written.close()


class _Shown(logging.Handler):
    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        self._show(record.getMessage())


class _LibraryLog(logging.FileHandler):
    def __init__(self, file: Path, show: Callable[[str], None]) -> None:
        super().__init__(file, delay=True)
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self._file, self._show = file, show

    def emit(self, record: logging.LogRecord) -> None:
        is_first = self.stream is None
        try:
            super().emit(record)
        except OSError:  # it cannot be created
            return
        if is_first:
            self._show(f"{record.name.partition('.')[0]} reports an error; details: {self._file}")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Do nothing; by default, a traceback is printed."""
