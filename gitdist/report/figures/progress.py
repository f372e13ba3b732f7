"""How a study went: learning curves, the values that its search found, and when its trials ran."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from gitdist.report.comparison import Report
from gitdist.report.figures.hover import add_hover, set_hover, trial_text
from gitdist.report.figures.style import INK, PAPER, SMALL, Drawn, Picture, add_legend, new_axes, style_of
from gitdist.report.findings import counted
from gitdist.report.metrics import metric_of
from gitdist.report.records import ReportedStudy
from gitdist.study.files.times import Span

_BEST, _BASELINE = style_of(1), style_of(0)
_PALE: Any = {"color": INK, "linewidth": 0.9}
_UNITS = ((2 * 86400, 86400.0, "days"), (2 * 3600, 3600.0, "hours"), (120, 60.0, "minutes"))
_STATES: dict[str, Any] = {  # colours; hatches for grey print
    "finished": {"facecolor": "#0072B2"},
    "pruned": {"facecolor": "#E69F00", "hatch": "///"},
    "failed": {"facecolor": "#D55E00", "hatch": "xx"},
    "interrupted": {"facecolor": "#CC79A7", "hatch": "..."},
    "running": {"facecolor": "#009E73", "hatch": "\\\\"},
    "waiting": {"facecolor": "#56B4E9", "hatch": "++"},
    "generator": {"facecolor": "#8A8D91"},
}
_BAR: Any = {"edgecolor": PAPER, "linewidth": 0.5}
_MAX_ROWS = 40  # of a timeline with a row per trial
_ROW, _MAX_HEIGHT = 0.2, 8.0  # inches of a row of a timeline, and of all rows


def curve_figures(report: Report) -> Iterator[Picture]:
    """Yield the first objective on validation against the epoch, for each study that evaluated several epochs."""
    for study in report.compared_studies:
        if any(len(trial.curve) > 1 for trial in study.finished):
            title = metric_of(study.objective).title_under(study.spec.ekld_under)
            trials = counted(sum(bool(trial.curve) for trial in study.trials), "trial")
            caption = f"{study.spec.name}: {title} on the validation split against the epoch, {trials}."
            yield Picture(f"curves-{study.spec.name}", caption, _draw_curves(study))


def history_figures(report: Report) -> Iterator[Picture]:
    """Yield the first objective of the trials of each search by their number, and the best so far."""
    for study in report.compared_studies:
        if len(study.objective_values) > 1 and not study.compares_methods:
            title = metric_of(study.objective).title_under(study.spec.ekld_under)
            caption = (
                f"{study.spec.name}: {title} of each trial on the validation split, and the best so far. "
                f"{counted(len(study.objective_values), 'finished trial')}."
            )
            yield Picture(f"history-{study.spec.name}", caption, _draw_history(study))


def timeline_figures(report: Report) -> Iterator[Picture]:
    """Yield when each trial ran, from its first start to its last end, and how it ended."""
    for study in report.compared_studies:
        rows = _timeline(study)
        if rows:
            caption = (
                f"{study.spec.name}: when each trial ran, from its first start to its last end, interruptions "
                "included, and its state."
            )
            yield Picture(f"timeline-{study.spec.name}", caption, _draw_timeline(study, rows))


def _draw_curves(study: ReportedStudy) -> Figure:
    figure, (axis,) = new_axes(study.spec.name, height=3.5)
    best = study.best_trial
    others = [trial for trial in study.trials if trial.curve and trial is not best]
    opacity = float(np.clip(4 / max(1, len(others)), 0.12, 0.4))
    for trial in others:
        marker = "." if len(trial.curve) == 1 else None
        (line,) = axis.plot(list(trial.curve), list(trial.curve.values()), **_PALE, alpha=opacity, marker=marker)
        last = max(trial.curve)
        text = f"{trial_text(study, trial, trial.curve[last])}, epoch {last}"
        set_hover(line, text)
        add_hover(axis, [last], [trial.curve[last]], [text])
    drawn: list[Drawn] = []
    for marked, label, style in ((study.finished_baseline, "baseline", _BASELINE), (best, "best trial", _BEST)):
        if marked is not None and marked.curve:
            epochs, values = list(marked.curve), list(marked.curve.values())
            named = f"{label} ({marked.trial})" if marked is best else label
            shown = style | ({"markersize": 5} if len(epochs) <= 30 else {"marker": "None"})
            drawn += axis.plot(epochs, values, **shown, linewidth=2, label=named)
            texts = [f"{trial_text(study, marked, value)}, epoch {epoch}" for epoch, value in marked.curve.items()]
            add_hover(axis, epochs, values, texts)
    if others:
        drawn.append(Line2D([], [], **_PALE, alpha=0.4, label="other trials"))
    axis.set_xlabel("epoch")
    axis.set_ylabel(metric_of(study.objective).label(study.spec.ekld_under))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(figure, drawn)
    return figure


def _draw_history(study: ReportedStudy) -> Figure:
    figure, (axis,) = new_axes(study.spec.name, height=3.5)
    values = study.objective_values
    numbers = [trial.trial.number or 0 for trial in values]
    size = 5 if len(values) <= 60 else 3
    finished = {"linestyle": "none", "marker": "o", "markersize": size, "color": _BASELINE["color"], "alpha": 0.8}
    drawn: list[Drawn] = list(axis.plot(numbers, list(values.values()), **finished, label="trial"))
    add_hover(
        axis, numbers, list(values.values()), [trial_text(study, trial, value) for trial, value in values.items()]
    )
    pruned = [trial for trial in study.trials if trial.state == "pruned" and trial.curve]
    if pruned:
        x, y = [trial.trial.number or 0 for trial in pruned], [trial.curve[max(trial.curve)] for trial in pruned]
        drawn += axis.plot(x, y, "x", color=INK, alpha=0.5, markersize=size, label="pruned, last value")
        add_hover(axis, x, y, [trial_text(study, trial, value) for trial, value in zip(pruned, y, strict=True)])
    better = np.maximum if study.spec.search.directions[0] == "maximize" else np.minimum
    feasible = {trial.trial.number or 0: value for trial, value in values.items() if trial.feasible}
    if feasible:
        so_far = better.accumulate(list(feasible.values()))
        x = [*feasible, max(numbers)]
        drawn += axis.step(
            x, [*so_far, so_far[-1]], where="post", color=_BEST["color"], linewidth=2, label="best so far"
        )
    baseline = study.finished_baseline
    level = baseline.metric("validation", study.objective) if baseline else None
    if baseline is not None and level is not None:
        line = axis.axhline(level, color=INK, linestyle=(0, (4, 2)), linewidth=1.2, label="baseline")
        set_hover(line, trial_text(study, baseline, level))
        drawn.append(line)
    axis.set_xlabel("trial number")
    axis.set_ylabel(metric_of(study.objective).label(study.spec.ekld_under))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(figure, drawn)
    return figure


def _timeline(study: ReportedStudy) -> dict[str, tuple[Span, str, str]]:
    """Return the span, state and text of what ran, by name, in the order of the starts; empty if none is known."""
    rows = {"generator": (study.generator_span, "generator", "generator")}
    for trial in (study.baseline, *study.trials):
        if trial is not None:
            name = "baseline" if trial is study.baseline else str(trial.trial.number)
            rows[name] = (trial.span, trial.state, trial_text(study, trial))
    known = {name: row for name, row in rows.items() if row[0].started_at is not None}
    return known if known.keys() - {"generator"} else {}


def _draw_timeline(study: ReportedStudy, rows: Mapping[str, tuple[Span, str, str]]) -> Figure:
    """Draw a row per trial; of many trials, those that followed each other share a row."""
    starts = {name: span.started_at for name, (span, _, _) in rows.items() if span.started_at is not None}
    ends = {name: span.ended_at for name, (span, _, _) in rows.items() if span.ended_at is not None}
    first, last = min(starts.values()), max([*starts.values(), *ends.values()])
    places = _shared_rows(starts, ends) if len(rows) > _MAX_ROWS else {name: row for row, name in enumerate(rows)}
    num_rows = 1 + max(places.values())
    scale, unit = next(((scale, unit) for most, scale, unit in _UNITS if last - first > most), (1.0, "seconds"))
    states = list(dict.fromkeys(state for _, state, _ in rows.values()))
    figure, (axis,) = new_axes(study.spec.name, height=1.4 + 0.12 * len(states) + min(_MAX_HEIGHT, _ROW * num_rows))
    for name, (_, state, text) in rows.items():
        begin, end = (starts[name] - first) / scale, (ends.get(name, last) - first) / scale
        (bar,) = axis.barh(places[name], end - begin, 0.8, left=begin, **_BAR, **_STATES[state])
        ended = "" if name in ends else ", end not known"
        set_hover(bar, f"{text}; {state}, {begin:.3g} to {end:.3g} {unit}{ended}")
    if len(rows) > _MAX_ROWS:
        axis.set_yticks([])
        axis.set_ylabel("trials side by side")
    else:
        axis.set_yticks(range(num_rows), list(rows), fontsize=SMALL)
        axis.set_ylabel("trial number")
    axis.set_ylim(num_rows - 0.4, -0.6)
    axis.set_xlim(0, max((last - first) / scale, 1e-9) * 1.01)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel(f"{unit} since the first start")
    add_legend(figure, [Patch(**_BAR, **_STATES[state], label=state) for state in states])
    return figure


def _shared_rows(starts: Mapping[str, float], ends: Mapping[str, float]) -> dict[str, int]:
    """Return the row of each bar: the first one that is free when it starts."""
    free_from: list[float] = []
    places = {}
    for name in sorted(starts, key=starts.__getitem__):
        row = next((row for row, end in enumerate(free_from) if end <= starts[name]), len(free_from))
        free_from[row : row + 1] = [ends.get(name, np.inf)]
        places[name] = row
    return places
