"""Files with one JSON object per line, which grow while a study runs."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gitdist.disk import append_whole, replace_file


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects in a file, without its unreadable lines."""
    return [line for line in _parse(path) if line is not None]


def parse_lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the objects up to the first unreadable line, and whether all lines are readable."""
    lines: list[dict[str, Any]] = []
    for line in _parse(path):
        if line is None:
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

    @classmethod
    def reopen(cls, path: Path) -> Self:
        """Open a file for appending with all of its lines, readable or not, but without a torn end."""
        file = cls.__new__(cls)
        file._path = path
        whole_lines, newline, _ = (path.read_bytes() if path.exists() else b"").rpartition(b"\n")
        file._descriptor = replace_file(path, whole_lines + newline)
        return file

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


def _parse(path: Path) -> Iterator[dict[str, Any] | None]:
    """Yield the object in each line of a file; None for an unreadable line."""
    for text in path.read_bytes().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        yield line if isinstance(line, dict) else None


def _format(line: Mapping[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"
