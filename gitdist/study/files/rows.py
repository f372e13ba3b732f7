"""A trial's rows file: one line per epoch, which MLflow and reports are built from.

Rows of ended trials are repaired from their checkpoints, which hold all rows up to their epoch.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from gitdist.errors import IncompleteFileError
from gitdist.study.files.json_lines import JsonLinesFile, parse_lines
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.trial.epoch_row import EpochRow


def read_rows(path: Path) -> list[EpochRow]:
    """Return the rows up to the first damaged line."""
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


def parse_rows(path: Path) -> tuple[list[EpochRow], IncompleteFileError | None]:
    """Return the rows up to the first damaged line, and an error if that line lacks a field.

    A line that is no JSON object is the torn end of an interrupted write, not an error.
    """
    return _rows_of(parse_lines(path)[0], path)


def open_rows(path: Path, completed: Sequence[EpochRow]) -> JsonLinesFile:
    """Replace the rows file by the ``completed`` rows and open it for appending."""
    return JsonLinesFile(path, [row.to_json() for row in completed])


def repair_rows(directory: Path) -> list[EpochRow]:
    """Return the rows of a trial that is not running; rewrite its rows file if it is damaged or too short.

    Args:
        directory: the trial's. The result is the rows of its newest intact checkpoint or the undamaged rows of its
            file, whichever are more.
    """
    from gitdist.trial.checkpoint import checkpoints_of, completed_rows  # imports torch

    path = directory / "rows.jsonl"
    lines, readable = parse_lines(path)
    rows = _consecutive(_rows_of(lines, path)[0])
    intact = readable and len(rows) == len(lines)
    if intact and len(rows) >= checkpoints_of(directory).newest():
        return rows
    repaired = max(rows, completed_rows(directory), key=len)
    if not intact or len(repaired) > len(rows):
        open_rows(path, repaired).close()
    return repaired


def repair_trial(paths: StudyPaths, trial: TrialId) -> None:
    """Apply ``repair_rows`` to a trial; fetch its checkpoints first if they have more epochs than the rows file."""
    directory, results = paths.trial(trial), paths.results
    if len(read_rows(paths.rows(trial))) < results.newest_remote_checkpoint(directory):
        results.pull(directory, checkpoints=True)
    if repair_rows(directory):
        paths.push(paths.rows(trial))


def _rows_of(lines: Sequence[Mapping[str, Any]], path: Path) -> tuple[list[EpochRow], IncompleteFileError | None]:
    rows: list[EpochRow] = []
    for line in lines:
        try:
            rows.append(EpochRow.from_json(line))
        except KeyError as missing:
            return rows, IncompleteFileError(path, missing.args[0], len(rows) + 1, is_derived=True)
    return rows, None


def _consecutive(rows: list[EpochRow]) -> list[EpochRow]:
    """Return the rows up to the first whose epoch is not its index + 1."""
    for index, row in enumerate(rows):
        if row.epoch != index + 1:
            return rows[:index]
    return rows
