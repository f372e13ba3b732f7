"""A trial's rows file: one JSON object a line, one line an epoch; the truth that MLflow and reports are made from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gitdist.store import write_atomic


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows, leaving out a last line that a killed writer left incomplete."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class RowsFile:
    """A rows file being written: it starts with the rows of the checkpoint that training goes on from."""

    def __init__(self, path: Path, completed: Sequence[Mapping[str, Any]]) -> None:
        """Replace the file at ``path`` by the ``completed`` rows, to append after them."""
        self._path = path
        write_atomic(path, "".join(_line(row) for row in completed).encode())

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one epoch's row."""
        with open(self._path, "a") as file:
            file.write(_line(row))


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":")) + "\n"
