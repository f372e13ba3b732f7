"""Start and end times of a study, its generator and its trials: ``times.jsonl``, one line per event.

    {"of": "study", "started_at": 1767225600.0}      a driver
    {"of": "7", "started_at": 1767225610.0}          trial 7; again when it is resumed
    {"of": "7", "ended_at": 1767225650.0}            it finished, failed, or was pruned or interrupted

The driver appends. MLflow's start and end times come from this file, so a run that is created again, in an empty store
or by another driver, has the same times. A trial's rows do not have them: the first rows may be of a prefix that
another trial trained long before.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from gitdist.study.files.json_lines import JsonLinesFile, read_lines
from gitdist.study.files.layout import StudyPaths

STUDY, GENERATOR = "study", "generator"


@dataclass(frozen=True)
class Span:
    """First start and last end in seconds since 1970; the end is None if unknown, or after another start."""

    started_at: float | None = None
    ended_at: float | None = None


class Times:
    """The times of one study: read-only unless opened with ``open``. Thread-safe."""

    def __init__(self, paths: StudyPaths) -> None:
        """Read the times of the study at ``paths``; there may be none."""
        self._paths = paths
        self._file: JsonLinesFile | None = None
        self._writing = threading.Lock()
        self._spans: dict[str, Span] = {}
        for line in read_lines(paths.times):
            self._update(line)

    @classmethod
    @contextmanager
    def open(cls, paths: StudyPaths) -> Iterator[Self]:
        """Read the times and allow appending until the end of the block; for the driver that owns the study."""
        times = cls(paths)
        with JsonLinesFile.reopen(paths.times) as times._file:
            yield times

    def span(self, name: str) -> Span:
        """Return the times of ``STUDY``, ``GENERATOR`` or a trial (``str(TrialId)``)."""
        return self._spans.get(name, Span())

    def started(self, name: str) -> None:
        """Record that ``name`` starts now."""
        self._append({"of": name, "started_at": time.time()})

    def ended(self, name: str) -> None:
        """Record that ``name`` ends now."""
        self._append({"of": name, "ended_at": time.time()})

    def _append(self, line: dict[str, Any]) -> None:
        assert self._file is not None, "these times were opened for reading"
        with self._writing:
            self._file.append(line)
            self._update(line)
            self._paths.push(self._paths.times)

    def _update(self, line: Mapping[str, Any]) -> None:
        known = self.span(str(line.get("of")))
        started_at, ended_at = line.get("started_at"), line.get("ended_at")
        if isinstance(started_at, int | float):
            known = Span(started_at if known.started_at is None else known.started_at)
        elif isinstance(ended_at, int | float):
            known = replace(known, ended_at=ended_at)
        self._spans[str(line.get("of"))] = known
