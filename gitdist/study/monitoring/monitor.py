"""Monitors a study while it runs, on a separate thread.

    driver's loop: epoch_ended --> seconds waited -----\
    stream's actors --> StatsPoller -- every 10 s ------> a line --> display; watch.jsonl --> MLflow, `gitdist status`
    this machine --> its CPU, memory, GPUs ------------/

At first every line is written to the file, later one per minute. After each line, the file is copied to the object
store, then the line is written to MLflow, so the next driver's step numbers continue after those in MLflow. If the
thread cannot read or write the statistics, they are missing; the study continues.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Self

from gitdist.errors import first_line
from gitdist.stream.stats_poller import StatsPoller, StreamSnapshot
from gitdist.study.files.attribution import trainer_name
from gitdist.study.files.events import Observer
from gitdist.study.files.json_lines import JsonLinesFile, read_lines
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.monitoring.latest import describe_stream
from gitdist.trial.epoch_row import EpochRow

_PERIOD_S = 10.0  # between two polls
_ANSWER_S = 0.5  # timeout of a poll
_LAST_S = 5.0  # timeout of the last poll of a stream, or of the study
_LONGEST_S = 60.0  # between two lines of the file
_GROWTH = 0.05  # of the time since the driver started, up to _LONGEST_S


def pause_after(elapsed_s: float) -> float:
    """Return the minimum seconds between two lines of the file, ``elapsed_s`` after the driver started.

    A short study has many lines, a long one at most one per minute.
    """
    return min(_LONGEST_S, _GROWTH * elapsed_s)


def stream_metrics(snapshot: StreamSnapshot, waiting_s: float) -> dict[str, float]:
    """Return the stream's statistics; ``waiting_s``: the total seconds that trials have waited."""
    return {
        "stream/images_per_s": round(snapshot.images_per_s, 2),
        "stream/window_blocks": snapshot.window_blocks,
        "stream/window_capacity": snapshot.window_capacity,
        "stream/server_utilisation": round(snapshot.utilisation, 4),
        "stream/servers": snapshot.num_servers,
        "stream/servers_answering": snapshot.num_answering,
        "stream/waiting_s": round(waiting_s, 3),
    }


class StreamWaitTotal(Observer):
    """Adds up the seconds that trials waited for the stream; any thread may read ``total_s``."""

    def __init__(self, paths: StudyPaths, trials: Iterable[TrialId] = ()) -> None:
        """Start from the rows files of ``trials``, which earlier drivers ran."""
        self.total_s = 0.0
        self._paths = paths
        self._names: dict[TrialId, str] = {}
        self._waited: dict[tuple[TrialId, int], float] = {}
        for trial in trials:
            for row in read_rows(paths.rows(trial)):
                self.epoch_ended(trial, row)

    def epoch_ended(self, trial: TrialId, row: EpochRow) -> None:
        """Add an epoch that the trial itself trained; an epoch reported again after an interruption counts once."""
        if trial not in self._names:
            self._names[trial] = trainer_name(self._paths, trial)
        trainer = self._names[trial]
        if (row.trained_by or trainer) == trainer:
            key, waited_s = (trial, row.epoch), row.waiting_s
            self.total_s += waited_s - self._waited.get(key, 0.0)
            self._waited[key] = waited_s


class Monitor:
    """A study's monitoring thread; use it as a context manager."""

    def __init__(
        self,
        paths: StudyPaths,
        stream_wait: StreamWaitTotal,
        measure: Callable[[], Mapping[str, float]],
        show: Callable[[str], None],
        on_write: Callable[[], None],
        period_s: float = _PERIOD_S,
    ) -> None:
        """Create the thread; entering the block starts it."""
        self._paths, self._stream_wait, self._measure_machine = paths, stream_wait, measure
        self._show, self._on_write, self._period_s = show, on_write, period_s
        self._changed = threading.Condition()
        self._poller: StatsPoller | None = None
        self._stream_ending = self._ended = False
        self._thread = threading.Thread(target=self._run, name="gitdist-monitor", daemon=True)

    def __enter__(self) -> Self:
        """Open the file and start the thread."""
        steps = [line.get("step") for line in read_lines(self._paths.monitor_log)]
        self._file = JsonLinesFile.reopen(self._paths.monitor_log)
        self._step = max([len(steps), *(step for step in steps if isinstance(step, int))])
        self._started_at, self._wrote_at = time.monotonic(), -_LONGEST_S
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread after the current poll; wait at most a few seconds."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._thread.join(_LAST_S)
        if not self._thread.is_alive():  # else it hangs in a call until the process ends
            self._file.close()

    @contextmanager
    def following(self, poller: StatsPoller | None) -> Iterator[None]:
        """Monitor a stream, if any, inside the block; at its end, wait a few seconds for a last poll."""
        self._poller = poller
        try:
            yield
        finally:
            with self._changed:
                self._stream_ending = poller is not None
                self._changed.notify_all()
                self._changed.wait_for(lambda: not self._stream_ending, timeout=_LAST_S)

    def _run(self) -> None:
        self._start_measuring()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stream_ending or self._ended, timeout=self._period_s)
                is_last = self._stream_ending
                if self._ended:
                    return
            self._poll(is_last)
            if is_last:
                with self._changed:
                    self._poller, self._stream_ending = None, False
                    self._changed.notify_all()

    def _start_measuring(self) -> None:
        with suppress(Exception):  # the first poll shows the error
            self._measure_machine()

    def _poll(self, is_last: bool) -> None:
        try:
            stats = self._read_stats()
            if line := describe_stream(stats):
                self._show(line)
            elapsed_s = time.monotonic() - self._started_at
            if stats and (is_last or elapsed_s - self._wrote_at >= pause_after(elapsed_s)):
                self._write(stats)
                self._wrote_at = elapsed_s
        except Exception as error:  # the study does not depend on the monitor
            self._show(f"monitoring failed ({first_line(error)})")

    def _read_stats(self) -> dict[str, float]:
        snapshot = self._poller.poll(_ANSWER_S) if self._poller else None
        stream_stats = stream_metrics(snapshot, self._stream_wait.total_s) if snapshot else {}
        return {**stream_stats, **self._measure_machine()}

    def _write(self, stats: Mapping[str, Any]) -> None:
        self._file.append({"step": self._step + 1, "at": time.time(), **stats})
        self._step += 1
        self._paths.push(self._paths.monitor_log)
        self._on_write()
