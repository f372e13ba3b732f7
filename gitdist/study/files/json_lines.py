"""Files with one JSON object per line, which grow while a study runs."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gitdist.disk import append_whole, replace_file


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects up to the first unreadable line."""
    return parse_lines(path)[0]


def parse_lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the objects up to the first unreadable line, and whether all lines are readable."""
    if not path.exists():
        return [], True
    lines: list[dict[str, Any]] = []
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            line = None
        if not isinstance(line, dict):
            return lines, False
        lines.append(line)
    return lines, True


class JsonLinesFile:
    """A file of lines open for appending.

    It is opened once: if another writer replaces the file, lines appended here go to the replaced file.
    """

    def __init__(self, path: Path, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        """Replace the content of ``path`` by ``lines``."""
        self._path = path
        self._descriptor = replace_file(path, "".join(_format(line) for line in lines).encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def append(self, line: Mapping[str, Any]) -> None:
        """Append a line and flush it to the disk."""
        append_whole(self._descriptor, _format(line).encode(), self._path)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _format(line: Mapping[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"
