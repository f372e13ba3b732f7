"""A trial's rows file: one JSON line per epoch, which MLflow and reports are built from.

Rows of ended trials are repaired from their checkpoints, which hold all rows up to their epoch.
"""

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

from gitdist.disk import append_whole, replace_file
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.trial.checkpoint import checkpoints_of, completed_rows


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows up to the first unreadable line."""
    return parse_rows(path)[0]


def count_rows(path: Path) -> int:
    """Return the number of rows; a file is parsed again only when its size or modification time has changed."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return _count_rows(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _count_rows(path: Path, size: int, mtime_ns: int) -> int:
    return len(read_rows(path))


def parse_rows(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows up to the first unreadable line, and whether all lines are readable."""
    if not path.exists():
        return [], True
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            return rows, False
        rows.append(row)
    return rows, True


class RowsFile:
    """A rows file open for appending; it starts with the rows of the checkpoint that training resumes from.

    It is opened once: if another writer replaces the file, rows appended here go to the replaced file.
    """

    def __init__(self, path: Path, completed: Sequence[Mapping[str, Any]]) -> None:
        """Replace the content of ``path`` by the ``completed`` rows."""
        self._path = path
        self._descriptor = replace_file(path, "".join(_line(row) for row in completed).encode())

    def __enter__(self) -> "RowsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one epoch's row and flush it to the disk."""
        append_whole(self._descriptor, _line(row).encode(), self._path)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def repair_rows(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of a trial that is not running; rewrite its rows file if it is damaged or too short.

    Args:
        directory: the trial's. The result is the rows of its newest intact checkpoint or the undamaged rows of its
            file, whichever are more.
    """
    path = directory / "rows.jsonl"
    readable, intact = parse_rows(path)
    rows = _consecutive(readable)
    intact = intact and len(rows) == len(readable)
    if intact and len(rows) >= checkpoints_of(directory).newest():
        return rows
    repaired = max(rows, completed_rows(directory), key=len)
    if not intact or len(repaired) > len(rows):
        RowsFile(path, repaired).close()
    return repaired


def repair_trial(paths: StudyPaths, trial: TrialId) -> None:
    """Apply ``repair_rows`` to a trial; fetch its checkpoints first if they have more epochs than the rows file."""
    directory, results = paths.trial(trial), paths.results
    if len(read_rows(paths.rows(trial))) < results.newest_remote_checkpoint(directory):
        results.pull(directory, checkpoints=True)
    if repair_rows(directory):
        paths.push(paths.rows(trial))


def _consecutive(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows up to the first whose epoch is not its index + 1."""
    for index, row in enumerate(rows):
        if row.get("epoch") != index + 1:
            return rows[:index]
    return rows


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
