"""Shows a running study: a live table on a terminal, one line per event in a log."""

import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gitdist.generator.base import TrainingStep
from gitdist.study.files.events import Observer, Outcome
from gitdist.study.files.layout import TrialId
from gitdist.trial.epoch_row import EpochRow

_COLUMNS = {"val/balanced_accuracy": "balanced acc.", "val/few_accuracy": "few-shot acc.", "val/ekld": "eKLD (nats)"}
_COLOURS = {"running": "yellow", "finished": "green", "pruned": "cyan", "failed": "red", "interrupted": "magenta"}
_MAX_LINES = 40
_STREAM_LOG_S = 60.0  # between two log lines about the stream
_NO_CAPACITY = "waiting for capacity for trials, since {:.0f} s"
_WAITS = "waits for its first stage, which another trial trains"


class Display(Observer):
    """Shows a study's progress; use it as a context manager."""

    def __enter__(self) -> Self:
        """Start showing."""
        return self

    @abstractmethod
    def __exit__(self, *exception: Any) -> None:
        """Stop, and leave the last state on the screen."""

    @abstractmethod
    def log(self, text: str) -> None:
        """Log one line permanently."""

    @abstractmethod
    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Show the progress of a long step."""

    @abstractmethod
    def stream(self, text: str) -> None:
        """Show a line about the stream; any thread may call this."""

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the terminal to others inside the block."""
        yield

    def training_step(self, step: TrainingStep) -> None:
        """Show the progress of the generator's training."""
        name = "image" if "image" in step.losses else next(iter(step.losses), None)
        detail = f"{name} {step.losses[name]:.3f}" if name else ""
        self.progress("training the generator", step.step, step.total, detail)


def open_display(console: Console, num_epochs: int, search_fields: tuple[str, ...]) -> Display:
    """Return the live table if ``console`` is a terminal, else the log."""
    if console.is_terminal:
        return LiveDisplay(console, num_epochs, search_fields)
    return LogDisplay(console, num_epochs)


def format_value(value: Any) -> str:
    """Return a parameter or metric as text: four significant digits, 'all' for a missing threshold."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "all" if value is None else str(value)


class LogDisplay(Display):
    """One line per event, with the time of day."""

    def __init__(self, console: Console, num_epochs: int) -> None:
        """Write to ``console``; ``num_epochs`` is a trial's length."""
        self._console = console
        self._num_epochs = num_epochs
        self._searched_epochs: dict[TrialId, int] = {}
        self._waiting: set[TrialId] = set()
        self._progress_logged_at = 0.0
        self._stream_logged_at = -_STREAM_LOG_S

    def __exit__(self, *exception: Any) -> None:
        """Do nothing."""

    def log(self, text: str) -> None:
        """Write a line."""
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, markup=False, soft_wrap=True)

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Write a line every ten seconds and at the end."""
        if done == total or time.monotonic() - self._progress_logged_at >= 10:
            self._progress_logged_at = time.monotonic()
            self.log(f"{what}: {done} of {total} {detail}".rstrip())

    def stream(self, text: str) -> None:
        """Write a line every minute."""
        now = time.monotonic()
        if now - self._stream_logged_at >= _STREAM_LOG_S:
            self._stream_logged_at = now
            self.log(f"stream: {text}")

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Write the trial's parameters."""
        if "epochs" in params:
            self._searched_epochs[trial] = params["epochs"]
        self._waiting.discard(trial)
        self.log(f"{_name(trial)} started {_format_params(params)}".rstrip())

    def trial_linked(self, trial: TrialId, links: Mapping[str, int]) -> None:
        """Log which trial it repeats or replicates."""
        self.log(_describe_link(trial, links))

    def trial_waits(self, trial: TrialId) -> None:
        """Log once that the trial waits."""
        if trial not in self._waiting:
            self._waiting.add(trial)
            self.log(f"{_name(trial)} {_WAITS}")

    def no_capacity(self, waited_s: float) -> None:
        """Log the missing capacity."""
        self.log(_NO_CAPACITY.format(waited_s))

    def epoch_ended(self, trial: TrialId, row: EpochRow) -> None:
        """Write the epoch's metrics."""
        total = self._searched_epochs.get(trial, self._num_epochs)
        self.log(f"{_name(trial)} epoch {row.epoch} of {total} {_format_metrics(row)}".rstrip())

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Write how the trial ended."""
        self.log(f"{_name(trial)} {outcome.state}" + (f": {outcome.reason}" if outcome.reason else ""))


class LiveDisplay(Display):
    """A table of all trials, redrawn in place: the current step's progress above it, the stream below."""

    def __init__(self, console: Console, num_epochs: int, search_fields: tuple[str, ...]) -> None:
        """Draw on ``console``; ``num_epochs`` is a trial's length, ``search_fields`` are the searched fields."""
        self._num_epochs = num_epochs
        self._fields = search_fields
        self._rows: dict[TrialId, dict[str, Any]] = {}
        self._step: RenderableType | None = None
        self._stream = ""
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        """Draw the last state and stop."""
        self._step = None
        self._live.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop drawing inside the block."""
        self._live.stop()
        yield
        self._live.start()

    def log(self, text: str) -> None:
        """Print a line above the table."""
        self._step = None
        self._live.console.print(text, highlight=False, markup=False)

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Draw a progress bar."""
        grid = Table.grid(padding=(0, 1))
        grid.add_row(what, ProgressBar(total=total, completed=done, width=30), f"{done}/{total}", Text(detail, "dim"))
        self._step = grid if done < total else None

    def stream(self, text: str) -> None:
        """Draw the line below the table."""
        self._stream = text

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """Add the trial's line."""
        self._step = None
        self._rows[trial] = _new_row(params)

    def trial_linked(self, trial: TrialId, links: Mapping[str, int]) -> None:
        """Log which trial it repeats or replicates."""
        self.log(_describe_link(trial, links))

    def trial_waits(self, trial: TrialId) -> None:
        """Show that the trial waits instead of its state."""
        self._rows[trial]["reason"] = _WAITS

    def no_capacity(self, waited_s: float) -> None:
        """Log the missing capacity above the table."""
        self.log(_NO_CAPACITY.format(waited_s))

    def epoch_ended(self, trial: TrialId, row: EpochRow) -> None:
        """Update the trial's metrics."""
        line = self._rows[trial]
        line.update(epoch=row.epoch, metrics=row.metrics or line["metrics"], reason=None)
        line["waited"][row.epoch] = row.waiting_s  # after an interruption epochs are reported again

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """Update the trial's state."""
        line = self._rows.setdefault(trial, _new_row({}))  # some trials end before they start
        line.update(state=outcome.state, reason=outcome.reason)

    def _render(self) -> RenderableType:
        parts: list[RenderableType] = [self._step] if self._step else []
        if self._rows:
            parts.append(self._table())
        if self._stream:
            parts.append(Text(f"stream: {self._stream}", "dim"))
        return Group(*parts)

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        headers = ["trial", *self._fields, "epoch", *_COLUMNS.values(), "waited", "state"]
        for header in headers:
            table.add_column(header, justify="left" if header in ("trial", "state", *self._fields) else "right")
        for trial, line in list(self._rows.items())[-_MAX_LINES:]:
            metrics, params = line["metrics"], line["params"]
            table.add_row(
                str(trial),
                *(escape(format_value(params[name])) if name in params else "-" for name in self._fields),
                f"{line['epoch']}/{params.get('epochs', self._num_epochs)}",
                *(f"{metrics[name]:.4f}" if name in metrics else "-" for name in _COLUMNS),
                f"{sum(line['waited'].values()):.1f} s",
                Text(line["reason"] or line["state"], _COLOURS[line["state"]]),
            )
        return table


def _new_row(params: Mapping[str, Any]) -> dict[str, Any]:
    return {"params": params, "state": "running", "epoch": 0, "metrics": {}, "reason": None, "waited": {}}


def _name(trial: TrialId) -> str:
    return "baseline" if trial.number is None else f"trial {trial.number}"


def _describe_link(trial: TrialId, links: Mapping[str, int]) -> str:
    if "repeat_of" in links:
        return f"{_name(trial)} trains the same as trial {links['repeat_of']}, whose result is reused"
    return f"{_name(trial)} trains the same as trial {links['replicate_of']} and is a replicate of it"


def _format_params(params: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={format_value(value)}" for name, value in params.items())


def _format_metrics(row: EpochRow) -> str:
    shown = {name.split("/")[1]: row.metrics[name] for name in _COLUMNS if name in row.metrics}
    return " ".join(f"{name}={value:.4f}" for name, value in {"loss": row.loss, **shown}.items())
