"""A trial's rows file: one JSON object a line, one line an epoch; the truth that MLflow and reports are made from."""

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any

from gitdist.disk import append_whole, replace_file


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows up to the first line that a killed writer or a damaged disk left unreadable."""
    return parse_rows(path)[0]


def count_rows(path: Path) -> int:
    """Return the number of ``read_rows``; a file is parsed again only when its size or time of change differs."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return _count_rows(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _count_rows(path: Path, size: int, mtime_ns: int) -> int:
    return len(read_rows(path))


def parse_rows(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows up to the first unreadable line, and whether there is no such line."""
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
    """A rows file being written: it starts with the rows of the checkpoint that training goes on from.

    It is opened once: after another writer has replaced it, what is appended here goes into the file that was replaced.
    """

    def __init__(self, path: Path, completed: Sequence[Mapping[str, Any]]) -> None:
        """Replace the file at ``path`` by the ``completed`` rows, to append after them.

        Raises:
            DiskError: the disk does not take it; the file is as it was.
        """
        self._path = path
        self._descriptor = replace_file(path, "".join(_line(row) for row in completed).encode())

    def __enter__(self) -> "RowsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one epoch's row; it is on the disk when this returns.

        Raises:
            DiskError: the disk does not take it; the file is as it was.
        """
        append_whole(self._descriptor, _line(row).encode(), self._path)

    def close(self) -> None:
        """End writing."""
        os.close(self._descriptor)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
