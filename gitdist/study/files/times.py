"""When a study, its generator and its trials started and ended: ``times.jsonl``, a line per event.

    {"of": "study", "started_at": 1767225600.0}      a driver
    {"of": "7", "started_at": 1767225610.0}          trial 7; again when it is resumed
    {"of": "7", "ended_at": 1767225650.0}            finished, pruned, failed or interrupted

The driver appends. MLflow's start and end times are made from this file, so a run that is created a second time, in an
empty store or by another driver, has the same ones. A trial's rows cannot tell them: the first ones may be of a prefix
that another trial trained long before.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self

from gitdist.study.files.events import Observer, Outcome
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import RowsFile, read_rows

STUDY, GENERATOR = "study", "generator"


@dataclass(frozen=True)
class Span:
    """When something started first and ended last, in seconds since 1970; None where that is not known.

    ``ended_at`` is None too where it has been started again since.
    """

    started_at: float | None = None
    ended_at: float | None = None


class Times(Observer):
    """The times of one study; read, or written too where it was opened for that. Any thread may call."""

    def __init__(self, paths: StudyPaths) -> None:
        """Read the times of the study at ``paths``, of which there may be none."""
        self._paths = paths
        self._file: RowsFile | None = None
        self._writing = threading.Lock()
        self._spans: dict[str, Span] = {}
        self._lines = read_rows(paths.times)
        for line in self._lines:
            self._note(line)

    @classmethod
    @contextmanager
    def open(cls, paths: StudyPaths) -> Iterator[Self]:
        """Read the times and append to them until the block is left; for the driver that owns the study.

        Raises:
            DiskError: the disk does not take the file.
        """
        times = cls(paths)
        with RowsFile(paths.times, times._lines) as times._file:
            yield times

    def span(self, of: str) -> Span:
        """Return the times of ``STUDY``, ``GENERATOR`` or a trial (``str(TrialId)``)."""
        return self._spans.get(of, Span())

    def started(self, of: str) -> None:
        """Note that something starts now.

        Raises:
            DiskError: the disk does not take the line.
            StoreError: the object store with the results cannot be reached.
        """
        self._append({"of": of, "started_at": time.time()})

    def ended(self, of: str) -> None:
        """Note that something has ended now.

        Raises:
            DiskError: the disk does not take the line.
            StoreError: the object store with the results cannot be reached.
        """
        self._append({"of": of, "ended_at": time.time()})

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Note the start."""
        self.started(str(trial))

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Note the end."""
        self.ended(str(trial))

    def _append(self, line: dict[str, Any]) -> None:
        assert self._file is not None, "times that were only read are not written"
        with self._writing:
            self._file.append(line)
            self._note(line)
            self._paths.push(self._paths.times)

    def _note(self, line: Mapping[str, Any]) -> None:
        known = self.span(str(line.get("of")))
        if "started_at" in line:
            first = line["started_at"] if known.started_at is None else known.started_at
            known = Span(first)
        elif "ended_at" in line:
            known = replace(known, ended_at=line["ended_at"])
        self._spans[str(line.get("of"))] = known
