"""Draws a study's snapshot as lines of text that fit a terminal, and says it in one line for a log.

Running trials come first, then the baseline and the best trials; the others are counted. The trials are a table if that
fits the width, else a list. Nothing is cut: what does not fit a line continues on the next one, and trials that do not
fit the height are counted.
"""

from collections.abc import Mapping, Sequence

from rich.cells import cell_len, chop_cells
from rich.text import Text

from gitdist.durations import format_duration
from gitdist.errors import one_line
from gitdist.study.ledger.records import list_trials
from gitdist.study.monitoring.progress import WAITS, Phase, Snapshot
from gitdist.study.trial_status import TrialStatus, format_value

_TITLES = {
    "val/balanced_accuracy": "balanced accuracy",
    "val/many_accuracy": "many-shot accuracy",
    "val/medium_accuracy": "medium-shot accuracy",
    "val/few_accuracy": "few-shot accuracy",
    "val/ekld": "eKLD (nats)",
}
_BESIDE = ("val/balanced_accuracy", "val/ekld", "val/few_accuracy")  # beside the objectives, the most telling first
_COLOURS = {"running": "yellow", "waits": "yellow", "best": "green", "infeasible": "red"}
_LIST_COLUMNS = 60  # terminals that are no wider show a list
_STREAM_LINES = 15  # terminals with fewer lines do not show the stream
_MAX_BEST = 10
_MAX_FRONT = 6  # numbers of trials of a Pareto front in a line
_BAR = 20
_ENDED = ("finished", "pruned", "failed")
_HEADER = 10  # columns; a longer header takes two lines
_INDENTED = 30  # columns; lines that continue another one are indented on wider terminals


def metric_text(metrics: Mapping[str, float]) -> str:
    """Return the metrics of a trial as text."""
    return ", ".join(f"{_title(name)} {value:.4f}" for name, value in metrics.items())


def progress_line(snapshot: Snapshot) -> str:
    """Return how far the study is: ``12 of 30 trials, best 0.9500 (trial 5), 14 min left``."""
    ended = sum(trial.state in _ENDED for trial in _searched(snapshot))
    parts = [f"{ended} of {snapshot.total} trials"] if snapshot.total else []
    best = snapshot.best
    if len(snapshot.search.objectives) > 1 and best:
        numbers = [number for point in best for number in point.numbers]
        is_short = len(numbers) <= _MAX_FRONT
        parts.append(f"Pareto front: {list_trials(numbers) if is_short else f'{len(best)} trials'}")
    elif best:
        mean = "best mean" if best[0].replicates else "best"
        parts.append(f"{mean} {best[0].objectives[0]:.4f} ({list_trials(best[0].numbers)})")
    elif snapshot.search.constraints and any(trial.state == "finished" for trial in _searched(snapshot)):
        parts.append("no trial meets the constraints")
    if snapshot.left_s:
        most = "at most " if snapshot.search.may_stop else ""
        parts.append(f"{most}{format_duration(snapshot.left_s)} left")
    return ", ".join(parts)


def phase_line(phase: Phase) -> str:
    """Return how far a phase is: ``training the generator: 400 of 2,000 steps, 13 steps/s, 2 min left``."""
    parts = [f"{phase.done:,} of {phase.total:,} {phase.unit}"]
    if phase.rate:
        slow = f"{1 / phase.rate:.2g} s per {phase.rate_unit.removesuffix('s')}"
        parts.append(slow if phase.rate < 1 else f"{phase.rate:,.3g} {phase.rate_unit}/s")
    if phase.left_s is not None:
        parts.append(f"{format_duration(phase.left_s)} left")
    return f"{phase.name}: " + ", ".join([*parts, *([phase.detail] if phase.detail else [])])


def draw_phase(phase: Phase, width: int) -> list[Text]:
    """Return how far a phase is, with a bar if there is space for it."""
    text, done = phase_line(phase), round(_BAR * phase.done / max(1, phase.total))
    bar = f"[{'=' * done}{' ' * (_BAR - done)}] "
    if len(bar) + cell_len(text) <= width:
        return [Text(bar + text)]
    return [Text(line) for line in _wrap(text, width)]


def draw(snapshot: Snapshot, width: int, height: int) -> list[Text]:
    """Return at most ``height`` lines of at most ``width`` columns."""
    head = draw_phase(snapshot.phase, width) if snapshot.phase else []
    head += [Text(line, "bold") for line in _wrap(progress_line(snapshot), width)]
    stream: list[Text] = []
    if snapshot.stream and width > _LIST_COLUMNS and height >= _STREAM_LINES:
        stream = [Text(line, "dim") for line in _wrap(f"stream: {snapshot.stream}", width)]
    entries = _ordered(snapshot)
    for number in range(min(len(entries), height), -1, -1):
        shown = entries[:number]
        body = _table(shown, snapshot, width) if shown and width > _LIST_COLUMNS else None
        body = _list(shown, snapshot, width) if body is None else body
        lines = [*head, *body, *(Text(line, "dim") for line in _wrap(_count(snapshot, shown), width)), *stream]
        if len(lines) <= height:
            return lines
    return lines[:height]


def _searched(snapshot: Snapshot) -> list[TrialStatus]:
    return [trial for trial in snapshot.trials if trial.trial != "baseline"]


def _ordered(snapshot: Snapshot) -> list[TrialStatus]:
    """Return the trials that are worth a line: running ones, the baseline, then finished ones from the best on."""
    running = [trial for trial in snapshot.trials if trial.state == "running"]
    baseline = [trial for trial in snapshot.trials if trial.trial == "baseline" and trial.state == "finished"]
    objective, direction = snapshot.search.objectives[0], snapshot.search.directions[0]
    sign, front = -1 if direction == "maximize" else 1, _front(snapshot)

    def rank(trial: TrialStatus) -> tuple[bool, bool, float]:
        return trial.trial not in front, not snapshot.is_feasible(trial), sign * trial.metrics[objective]

    finished = [trial for trial in _searched(snapshot) if trial.state == "finished" and objective in trial.metrics]
    return [*running, *baseline, *sorted(finished, key=rank)[:_MAX_BEST]]


def _front(snapshot: Snapshot) -> set[str]:
    return {str(number) for point in snapshot.best for number in point.numbers}


def _count(snapshot: Snapshot, shown: Sequence[TrialStatus]) -> str:
    """Return how many search trials are in each state beside those shown."""
    names = {trial.trial for trial in shown}
    states = [trial.state for trial in _searched(snapshot) if trial.trial not in names]
    counts = {state: states.count(state) for state in ("running", *_ENDED, *sorted(set(states)))}
    counts["queued"] = snapshot.total - len(_searched(snapshot))
    text = ", ".join(f"{count} {state}" for state, count in counts.items() if count > 0)
    return f"not shown: {text}" if text and names else text


def _table(shown: Sequence[TrialStatus], snapshot: Snapshot, width: int) -> list[Text] | None:
    """Return the trials as a table, without metrics beside the objectives if they do not fit; None: it is too wide."""
    objectives, fields = snapshot.search.objectives, snapshot.search.fields
    beside = [name for name in _BESIDE if name not in objectives]
    for number in range(len(beside), -1, -1):
        metrics = [*objectives, *beside[:number]]
        columns = [
            ["", "trial", *(trial.trial for trial in shown)],
            ["", "epoch", *(f"{trial.epoch}/{trial.epochs}" for trial in shown)],
            *([*_header(_title(name)), *(_metric(trial, name) for trial in shown)] for name in metrics),
            *([*_header(name), *(_value(trial, name) for trial in shown)] for name in fields),
            ["", "state", *(_state(trial, snapshot) for trial in shown)],
        ]
        widths = [max(map(cell_len, column)) for column in columns]
        for gap in (2, 1):
            if sum(widths) + gap * (len(widths) - 1) <= width:
                right = range(1, 2 + len(metrics))
                return _rows(columns, widths, right, gap)
    return None


def _rows(columns: Sequence[Sequence[str]], widths: Sequence[int], right: range, gap: int) -> list[Text]:
    """Return the lines of a table whose columns begin with two lines of header; the last column has colours."""
    lines = []
    for number, cells in enumerate(zip(*columns, strict=True)):
        *values, state = cells
        padded = []
        for index, cell in enumerate(values):
            padding = " " * (widths[index] - cell_len(cell))
            padded.append(padding + cell if index in right else cell + padding)
        style = "bold" if number < 2 else _COLOURS.get(state, "")
        lines.append(Text((" " * gap).join(padded) + " " * gap, "bold" if number < 2 else "").append(state, style))
    return lines if lines[0].plain.strip() else lines[1:]


def _list(shown: Sequence[TrialStatus], snapshot: Snapshot, width: int) -> list[Text]:
    """Return the trials one after the other, each with its objectives and searched values."""
    lines = []
    for trial in shown:
        name = trial.trial if trial.trial == "baseline" else f"trial {trial.trial}"
        parts = [f"{name}: {_state(trial, snapshot)}", f"epoch {trial.epoch}/{trial.epochs}"]
        parts += [
            f"{_title(name)} {_metric(trial, name)}" for name in snapshot.search.objectives if name in trial.metrics
        ]
        parts += [f"{name} {_value(trial, name)}" for name in snapshot.search.fields if name in trial.params]
        lines += [Text(line, _COLOURS.get(_state(trial, snapshot), "")) for line in _wrap(", ".join(parts), width)]
    return lines


def _state(trial: TrialStatus, snapshot: Snapshot) -> str:
    if trial.state == "running" and trial.reason == WAITS:
        return "waits"
    if trial.state != "finished" or trial.trial == "baseline":
        return trial.state
    if trial.trial in _front(snapshot):
        return "best" if len(snapshot.search.objectives) == 1 else "front"
    return "finished" if snapshot.is_feasible(trial) else "infeasible"


def _metric(trial: TrialStatus, name: str) -> str:
    return f"{trial.metrics[name]:.4f}" if name in trial.metrics else "-"


def _value(trial: TrialStatus, name: str) -> str:
    return one_line(format_value(trial.params[name])) if name in trial.params else "-"


def _title(metric: str) -> str:
    return _TITLES.get(metric) or metric.removeprefix("val/").replace("_", " ")


def _header(text: str) -> tuple[str, str]:
    """Return a header as two lines, broken at the space or underscore nearest to its middle if it is long."""
    breaks = [index for index, char in enumerate(text) if char in " _"]
    if len(text) <= _HEADER or not breaks:
        return "", text
    middle = min(breaks, key=lambda index: abs(index - len(text) / 2))
    return text[: middle + (text[middle] == "_")], text[middle + 1 :]


def _wrap(text: str, width: int) -> list[str]:
    """Return a text as lines of at most ``width`` columns, broken after a comma, else at a space, else anywhere."""
    indent = "  " if width > _INDENTED else ""
    longest = max(1, width - len(indent) - 1)  # of a word, with a comma
    lines = [""]
    for piece in text.split(", "):
        for word in [piece] if cell_len(piece) <= longest else piece.split(" "):
            for part in [word] if cell_len(word) <= longest else chop_cells(word, longest):
                joined = f"{lines[-1]} {part}" if lines[-1].strip() else lines[-1] + part
                if cell_len(joined) < width:
                    lines[-1] = joined
                else:
                    lines.append(indent + part)
        lines[-1] += ","
    lines[-1] = lines[-1].removesuffix(",")
    return lines if text else []
