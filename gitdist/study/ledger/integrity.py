"""Checks that the file of a ledger is whole before it is opened: a damaged one is reported and keeps its bytes.

Opening would write: SQLite's tables into an empty file, and a journal is cut off after its last whole line.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from gitdist.errors import StudyError

_TABLE = "studies"  # that every Optuna storage has
_LINE_START = b'{"op_code":'  # of every line of a journal
_BUSY_S = 1.0  # a file that is being written is intact


def damaged_ledger_error(file: str, problem: str) -> StudyError:
    """Return the error for a ledger that cannot be read as the record of a study's trials."""
    return StudyError(
        f"the ledger {file} is damaged ({problem}); restore it from a backup, or move the study's directory away to "
        "start over"
    )


def check_sqlite_file(file: Path) -> None:
    """Check a SQLite ledger if it exists.

    Raises:
        StudyError: it is empty, truncated or no ledger.
    """
    if file.exists() and (problem := _sqlite_problem(file)):
        raise damaged_ledger_error(str(file), problem)


def check_journal_file(file: Path) -> None:
    """Check a journal if it exists; the line that a killed writer left incomplete is no damage.

    Raises:
        StudyError: it has other lines than a journal.
    """
    lines = file.read_bytes().split(b"\n") if file.exists() else [b""]
    for number, line in enumerate(lines[:-1], start=1):
        if not _is_operation(line):
            raise damaged_ledger_error(str(file), f"line {number} is not an operation of a journal")
    torn_line = lines[-1][: len(_LINE_START)]
    if not _LINE_START.startswith(torn_line):
        raise damaged_ledger_error(str(file), "its end is not the beginning of a journal's line")


def _sqlite_problem(file: Path) -> str | None:
    if not file.stat().st_size:
        return "it is empty"
    try:
        with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=_BUSY_S)) as connection:
            (result,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.OperationalError:  # it is busy or cannot be opened, which Optuna reports
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    return str(result) if result != "ok" else None if _TABLE in tables else "it has no table of studies"


def _is_operation(line: bytes) -> bool:
    try:
        operation = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(operation, dict) and "op_code" in operation
