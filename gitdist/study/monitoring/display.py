"""Shows a running study: a picture that is redrawn in place on a terminal, else the same facts as lines of a log."""

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from gitdist.generator.base import TrainingStep
from gitdist.study.files.events import Observer, Outcome
from gitdist.study.files.layout import TrialId
from gitdist.study.monitoring.picture import draw, draw_phase, metric_text, phase_line, progress_line
from gitdist.study.monitoring.progress import WAITS, Phase, Snapshot, StudyProgress
from gitdist.study.study import Study
from gitdist.study.trial_status import format_value
from gitdist.trial.epoch_row import EpochRow

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 60.0, 600.0  # between two lines of a log about the progress
_PAUSE_GROWTH = 0.02  # of the time since the log began
_NO_CAPACITY = "waiting for capacity for trials, since {:.0f} s"


def pause_between_lines(elapsed_s: float) -> float:
    """Return the minimum seconds between two lines about the progress, ``elapsed_s`` after the log began.

    A log of hours has a line per minute, one of a week fewer than two thousand.
    """
    return min(_LONGEST_PAUSE_S, max(_FIRST_PAUSE_S, _PAUSE_GROWTH * elapsed_s))


class Display(Observer):
    """Shows a study's progress; use it as a context manager."""

    def __init__(self) -> None:
        """Show no study yet."""
        self._study: StudyProgress | None = None
        self._phase: Phase | None = None
        self._phase_began = (0.0, 0)  # when, and how much was done then
        self._stream = ""
        self._expected_end: float | None = None  # on the monotonic clock

    def __enter__(self) -> Self:
        """Start showing."""
        return self

    @abstractmethod
    def __exit__(self, *exception: Any) -> None:
        """Stop, and leave the last state on the screen."""

    @abstractmethod
    def log(self, text: str) -> None:
        """Log one line permanently."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to others inside the block."""
        yield

    def show_study(self, study: Study) -> None:
        """Show from now on how the trials of a study are doing, also those that earlier drivers ran."""
        self._study = StudyProgress(study)

    def expect(self, total_s: float) -> None:
        """Show that the study takes ``total_s`` seconds from now on, until an epoch shows how long it really takes."""
        self._expected_end = time.monotonic() + total_s

    def progress(
        self,
        name: str,
        done: int,
        total: int,
        *,
        unit: str,
        rate_unit: str | None = None,
        each: float = 1.0,
        expected_s: float | None = None,
        detail: str = "",
    ) -> None:
        """Show the progress of a long step, with its speed and the time left.

        Args:
            name: of the step.
            done: units done.
            total: units in all.
            unit: their plural.
            rate_unit: what the speed counts, if that is not the unit.
            each: how many of them a unit has.
            expected_s: seconds that the whole step will take, known before its first unit is done.
            detail: what else to show.
        """
        now = time.monotonic()
        if self._phase is None or self._phase.name != name:
            self._phase_began = (now, done)
        began_at, began_with = self._phase_began
        elapsed_s, num_new = now - began_at, done - began_with
        per_s = num_new / elapsed_s if num_new and elapsed_s else None
        left_s = (total - done) / per_s if per_s else None
        if per_s is None and expected_s is not None:
            left_s = max(0.0, expected_s - elapsed_s)
        self._phase = Phase(
            name=name,
            done=done,
            total=total,
            unit=unit,
            rate=per_s and per_s * each,
            rate_unit=rate_unit or unit,
            left_s=left_s if done < total else None,
            detail=detail,
        )

    def stream(self, text: str) -> None:
        """Show a line about the stream; any thread may call this."""
        self._stream = text

    def training_step(self, step: TrainingStep) -> None:
        """Show the progress of the generator's training."""
        name = "image" if "image" in step.losses else next(iter(step.losses), None)
        detail = f"{name} {step.losses[name]:.3f}" if name else ""
        self.progress("training the generator", step.step, step.total, unit="steps", detail=detail)

    @property
    def phase(self) -> Phase | None:
        """The step that is under way, if any."""
        phase = self._phase
        return phase if phase and phase.done < phase.total else None

    def snapshot(self) -> Snapshot | None:
        """Return the facts that are shown; None before ``show_study``."""
        if self._study is None:
            return None
        snapshot = self._study.snapshot(self.phase, self._stream)
        if snapshot.left_s is None and self._expected_end is not None:
            return replace(snapshot, left_s=max(0.0, self._expected_end - time.monotonic()))
        return snapshot

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Add the trial."""
        self._phase = None
        self._known.trial_started(trial, params)

    def trial_linked(self, trial: TrialId, links: Mapping[str, int]) -> None:
        """Log which trial it repeats or replicates."""
        self.log(_describe_link(trial, links))

    def trial_waits(self, trial: TrialId) -> None:
        """Show that the trial waits."""
        self._known.trial_waits(trial)

    def no_capacity(self, waited_s: float) -> None:
        """Log the missing capacity."""
        self.log(_NO_CAPACITY.format(waited_s))

    def epoch_ended(self, trial: TrialId, row: EpochRow) -> None:
        """Update the trial."""
        self._known.epoch_ended(trial, row)

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Update the trial's state."""
        self._known.trial_ended(trial, outcome)

    @property
    def _known(self) -> StudyProgress:
        assert self._study is not None, "trials are those of a study"
        return self._study


def open_display(console: Console) -> Display:
    """Return the picture if ``console`` is a terminal that can redraw it, else the log."""
    return LiveDisplay(console) if console.is_terminal and not console.is_dumb_terminal else LogDisplay(console)


class LogDisplay(Display):
    """Lines with the time of day: starts and ends of trials, and in between how far the study is.

    The number of lines does not depend on that of epochs or steps.
    """

    def __init__(self, console: Console) -> None:
        """Write to ``console``."""
        super().__init__()
        self._console = console
        self._waiting: set[TrialId] = set()
        self._began_at = time.monotonic()
        self._wrote_at = {"phase": -_LONGEST_PAUSE_S, "trials": self._began_at, "stream": -_LONGEST_PAUSE_S}

    def __exit__(self, *exception: Any) -> None:
        """Do nothing."""

    def log(self, text: str) -> None:
        """Write a line."""
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, markup=False, soft_wrap=True)

    def progress(self, name: str, done: int, total: int, **details: Any) -> None:
        """Write a line at the step's beginning and end, and once in a while."""
        former = self._phase
        super().progress(name, done, total, **details)
        is_new = former is None or former.name != name
        is_end = done == total and not (former and former.done == total)
        assert self._phase is not None
        if is_new or is_end or self._is_due("phase"):
            self._wrote_at["phase"] = time.monotonic()
            self.log(phase_line(self._phase))

    def stream(self, text: str) -> None:
        """Write a line once in a while."""
        super().stream(text)
        if self._is_due("stream"):
            self._wrote_at["stream"] = time.monotonic()
            self.log(f"stream: {text}")

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Write the trial's parameters."""
        super().trial_started(trial, params)
        self._waiting.discard(trial)
        values = ", ".join(f"{name} {format_value(value)}" for name, value in params.items())
        self.log(f"{_name(trial)} started" + (f": {values}" if values else ""))

    def trial_waits(self, trial: TrialId) -> None:
        """Log once that the trial waits."""
        super().trial_waits(trial)
        if trial not in self._waiting:
            self._waiting.add(trial)
            self.log(f"{_name(trial)} {WAITS}")

    def epoch_ended(self, trial: TrialId, row: EpochRow) -> None:
        """Once in a while write how far the study and its running trials are."""
        super().epoch_ended(trial, row)
        if self._is_due("trials"):
            self._log_progress()

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Write how the trial ended, and how far the study is."""
        super().trial_ended(trial, outcome)
        status = self._known.status(trial)
        text = outcome.reason or metric_text(status.metrics)
        self.log(f"{_name(trial)} {outcome.state}" + (f": {text}" if text else ""))
        self._log_progress()

    def _log_progress(self) -> None:
        self._wrote_at["trials"] = time.monotonic()
        snapshot = self.snapshot()
        assert snapshot is not None
        if snapshot.phase is not None:
            self.log(phase_line(snapshot.phase))
        running = [
            f"{each.trial} (epoch {each.epoch}/{each.epochs})" for each in snapshot.trials if each.state == "running"
        ]
        self.log(progress_line(snapshot) + (f"; running: {', '.join(running)}" if running else ""))

    def _is_due(self, what: str) -> bool:
        now = time.monotonic()
        return now - self._wrote_at[what] >= pause_between_lines(now - self._began_at)


class LiveDisplay(Display):
    """The picture of ``draw``, redrawn in place; lines of the log are above it."""

    def __init__(self, console: Console) -> None:
        """Draw on ``console``."""
        super().__init__()
        self._live = Live(_Picture(self), console=console, refresh_per_second=2)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        """Draw the last state and stop."""
        self._phase = None
        self._live.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop drawing inside the block."""
        self._live.stop()
        yield
        self._live.start()

    def log(self, text: str) -> None:
        """Print a line above the picture."""
        self._live.console.print(text, highlight=False, markup=False)

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Update the trial's state; log why it ended if it did not finish."""
        super().trial_ended(trial, outcome)
        if outcome.reason:
            self.log(f"{_name(trial)} {outcome.state}: {outcome.reason}")


class _Picture:
    """Draws a display's snapshot in the size that the terminal has at that moment."""

    def __init__(self, display: LiveDisplay) -> None:
        self._display = display

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        snapshot, phase = self._display.snapshot(), self._display.phase
        if snapshot is not None:
            yield from draw(snapshot, options.max_width, options.size.height - 1)
        elif phase is not None:
            yield from draw_phase(phase, options.max_width)


def _name(trial: TrialId) -> str:
    return "baseline" if trial.number is None else f"trial {trial.number}"


def _describe_link(trial: TrialId, links: Mapping[str, int]) -> str:
    if "repeat_of" in links:
        return f"{_name(trial)} trains the same as trial {links['repeat_of']}, whose result is reused"
    return f"{_name(trial)} trains the same as trial {links['replicate_of']} and is a replicate of it"
