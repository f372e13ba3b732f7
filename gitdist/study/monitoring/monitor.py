"""Watches a study while it runs, on a thread that nobody waits for.

    driver's loop: epoch_ended --> seconds waited --\
    stream's actors --> Lookout -- every 10 s -------> a line --> display; watch.jsonl --> MLflow, `gitdist status`
    this machine --> its CPU, memory, GPUs ---------/

The file has every line at first, later one a minute; a copy of it is brought to the object store with each line, before
MLflow is told, so that the next driver's lines go on after all that MLflow has. Whatever keeps the thread from seeing
or writing, the study goes on: the figures are missing then, no more.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

from gitdist.errors import first_line
from gitdist.stream.lookout import Lookout
from gitdist.stream.pace import Sighting
from gitdist.study.files.attribution import trainer_name
from gitdist.study.files.events import Observer, Row
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import RowsFile, read_rows
from gitdist.study.monitoring.latest import describe_stream

_PERIOD_S = 10.0  # between two looks
_ANSWER_S = 0.5  # for which a look waits for answers
_LAST_S = 5.0  # for which the end of a stream, or of the study, waits for a look
_LONGEST_S = 60.0  # between two lines of the file
_GROWTH = 0.05  # of the time since the driver began, up to that


def pause_after(elapsed_s: float) -> float:
    """Return the least seconds between two lines of the file, ``elapsed_s`` after the driver began.

    A short study has many lines, a long one no more than one a minute.
    """
    return min(_LONGEST_S, _GROWTH * elapsed_s)


def stream_figures(sighting: Sighting, waiting_s: float) -> dict[str, float]:
    """Return the figures of a line that tell of the stream."""
    return {
        "stream/images_per_s": round(sighting.images_per_s, 2),
        "stream/window_blocks": sighting.window_blocks,
        "stream/window_capacity": sighting.window_capacity,
        "stream/server_utilisation": round(sighting.utilisation, 4),
        "stream/servers": sighting.num_servers,
        "stream/servers_answering": sighting.num_answering,
        "stream/waiting_s": round(waiting_s, 3),
    }


class Waiting(Observer):
    """An observer that adds up the seconds that trials waited for the stream; for one thread but for ``total_s``."""

    def __init__(self, paths: StudyPaths, trials: Iterable[TrialId] = ()) -> None:
        """Begin with what the rows files of ``trials``, which earlier drivers ran, tell."""
        self.total_s = 0.0
        self._paths = paths
        self._names: dict[TrialId, str] = {}
        self._waited: dict[tuple[TrialId, int], float] = {}
        for trial in trials:
            for row in read_rows(paths.rows(trial)):
                self.epoch_ended(trial, row)

    def epoch_ended(self, trial: TrialId, row: Row) -> None:
        """Add an epoch that the trial itself trained; after an interruption it comes again, and counts once."""
        if trial not in self._names:
            self._names[trial] = trainer_name(self._paths, trial)
        trainer = self._names[trial]
        if row.get("trained_by", trainer) == trainer:
            key, waited_s = (trial, row["epoch"]), row.get("waiting_s", 0.0)
            self.total_s += waited_s - self._waited.get(key, 0.0)
            self._waited[key] = waited_s


class Watch:
    """A study's watching thread; use it as a context manager."""

    def __init__(
        self,
        paths: StudyPaths,
        waiting: Waiting,
        machine: Callable[[], Mapping[str, float]],
        show: Callable[[str], None],
        written: Callable[[], None],
        period_s: float = _PERIOD_S,
    ) -> None:
        """Prepare to watch.

        Args:
            paths: the study's files; that of the lines goes on where an earlier driver left it.
            waiting: what trials have waited.
            machine: the figures of this machine since its last call; called by the thread alone.
            show: told, on the thread, how the stream stands, in one line.
            written: told, on the thread, that the file has another line.
            period_s: seconds between two looks.
        """
        self._paths, self._waiting, self._machine = paths, waiting, machine
        self._show, self._written, self._period_s = show, written, period_s
        self._changed = threading.Condition()
        self._lookout: Lookout | None = None
        self._leaving = self._ended = False
        self._thread = threading.Thread(target=self._run, name="gitdist-watch", daemon=True)

    def __enter__(self) -> Self:
        """Open the file and begin."""
        lines = read_rows(self._paths.figures)
        self._file = RowsFile(self._paths.figures, lines)
        self._step = lines[-1].get("step", len(lines)) if lines else 0
        self._began, self._wrote_at = time.monotonic(), -_LONGEST_S
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread, after a look under way; one that hangs is waited for a few seconds."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(_LAST_S)
        if not self._thread.is_alive():  # else it hangs in a call, and ends with the process
            self._file.close()

    @contextmanager
    def following(self, lookout: Lookout | None) -> Iterator[None]:
        """Watch a stream, if there is one, to its end, at which a last look is waited for, but not for long."""
        self._lookout = lookout
        try:
            yield
        finally:
            with self._changed:
                self._leaving = lookout is not None
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._leaving, timeout=_LAST_S)

    def _run(self) -> None:
        self._begin()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._leaving or self._ended, timeout=self._period_s)
                is_last = self._leaving
                if self._ended:
                    return
            self._look(is_last)
            if is_last:
                with self._changed:
                    self._lookout, self._leaving = None, False
                    self._changed.notify_all()

    def _begin(self) -> None:
        with suppress(Exception):  # it is told of where it keeps a look from seeing
            self._machine()

    def _look(self, is_last: bool) -> None:
        try:
            figures = self._figures()
            if line := describe_stream(figures):
                self._show(line)
            elapsed_s = time.monotonic() - self._began
            if figures and (is_last or elapsed_s - self._wrote_at >= pause_after(elapsed_s)):
                self._write(figures)
                self._wrote_at = elapsed_s
        except Exception as error:  # whatever it is, the study does not depend on being watched
            self._show(f"cannot be watched now ({first_line(error)})")

    def _figures(self) -> dict[str, float]:
        sighting = self._lookout.look(_ANSWER_S) if self._lookout else None
        of_stream = stream_figures(sighting, self._waiting.total_s) if sighting else {}
        return {**of_stream, **self._machine()}

    def _write(self, figures: Mapping[str, Any]) -> None:
        self._file.append({"step": self._step + 1, "at": time.time(), **figures})
        self._step += 1
        self._paths.push(self._paths.figures)
        self._written()
