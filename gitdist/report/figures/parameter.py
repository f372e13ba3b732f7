"""A metric against the class-size threshold K or the augmentation fraction p."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gitdist.report.figures.style import (
    INK,
    Drawn,
    add_legend,
    keep_within,
    new_axes,
    round_numbers,
    set_ticks,
    style_of,
)
from gitdist.report.grouping import (
    MAX_SETTINGS,
    Panel,
    Replicate,
    ReplicateKey,
    describe_setting,
    extra_labels,
    field_title,
)
from gitdist.report.metrics import METRICS
from gitdist.report.records import Split
from gitdist.report.statistics import Interval, interval

Position = float | None  # of a threshold, None = all classes


@dataclass(frozen=True, eq=False)
class Series:
    """A metric by the value of one field, all other fields the same; ``values`` are ordered by position."""

    label: str
    values: Mapping[Position, Interval]


def parameter_figure(panel: Panel, field: str, metric: str) -> Figure | None:
    """Return the figure of a metric against a searched field; None where fewer than two values of it were tried.

    Where settings agree in all other fields, they make a line, with the 95 % interval over replicates; else each trial
    is a point. Settings without the field are level lines.

    Args:
        panel: whose trials to show.
        field: ``threshold`` or ``fraction``.
        metric: one of ``METRICS``.
    """
    split = panel.trials_split
    trials = [each for each in panel.trials if metric in each.trial.measures[split].metrics]
    having = [each for each in trials if field in each.trial.params]
    positions = {each.trial.params[field] for each in having}
    if len(positions) < 2:
        return None
    series = _series(having, field, metric, split)
    if len(series) > MAX_SETTINGS or all(len(one.values) < 2 for one in series):
        series = []
    others = [line for line in panel.lines if field not in line.replicates[0].trial.params]
    levels = {line.label: interval(list(values.values())) for line in others if (values := line.values(metric, split))}
    figure, (axis,) = new_axes(panel.title, height=3.2 + 0.2 * (len(series) + len(levels)))
    whole = max((value for value in positions if value is not None), default=1) * 2
    drawn = [_draw_series(axis, one, index, whole) for index, one in enumerate(series)]
    if not series:
        places = [_place(each.trial.params[field], whole) for each in having]
        reached = [each.trial.measures[split].metrics[metric] for each in having]
        drawn += axis.plot(places, reached, color=style_of(0).color, marker="o", linestyle="none", label="a trial each")
    for index, (label, level) in enumerate(levels.items()):
        drawn.append(_draw_level(axis, level if len(levels) == 1 else replace(level, half=None), label, index))
    _finish(axis, field, positions, whole)
    axis.set_ylabel(METRICS[metric].axis(panel.ekld_under))
    keep_within(axis, METRICS[metric])
    add_legend(figure, drawn)
    return figure


def _series(having: Sequence[Replicate], field: str, metric: str, split: Split) -> list[Series]:
    groups: dict[tuple[str, tuple[str, ...]], dict[Position, dict[ReplicateKey, float]]] = {}
    for each in having:
        rest = {name: value for name, value in each.trial.setting.items() if name != field}
        label = describe_setting(rest) if rest else "trials"
        values = groups.setdefault((label, extra_labels(each.study)), {}).setdefault(each.trial.params[field], {})
        values.setdefault(each.key, each.trial.measures[split].metrics[metric])
    labels = [label for label, _ in groups]
    return [
        Series(
            label=f"{label} ({', '.join(extra)})" if labels.count(label) > 1 else label,
            values={key: interval(list(found[key].values())) for key in sorted(found, key=_order)},
        )
        for (label, extra), found in groups.items()
    ]


def _order(position: Position) -> float:
    return float("inf") if position is None else position


def _place(position: Position, whole: float) -> float:
    return whole if position is None else position


def _draw_series(axis: Axes, series: Series, index: int, whole: float) -> Drawn:
    style = style_of(index)
    halves = [value.half or 0.0 for value in series.values.values()]
    return axis.errorbar(
        [_place(position, whole) for position in series.values],
        [value.mean for value in series.values.values()],
        yerr=halves if any(halves) else None,
        color=style.color,
        marker=style.marker,
        linestyle=style.linestyle,
        capsize=3,
        label=series.label,
    )


def _draw_level(axis: Axes, level: Interval, label: str, index: int) -> Drawn:
    dashes = ((0, (4, 2)), (0, (1, 1)), (0, (6, 2, 1, 2)))[index % 3]
    line = axis.axhline(level.mean, color=INK, linestyle=dashes, label=label)
    if level.half is not None:
        axis.axhspan(level.mean - level.half, level.mean + level.half, color=INK, alpha=0.08, linewidth=0)
    return line


def _finish(axis: Axes, field: str, positions: set[Position], whole: float) -> None:
    axis.set_xlabel(field_title(field))
    known = sorted(position for position in positions if position is not None)
    if field == "threshold" and known:
        axis.set_xscale("log")
        ticks = known if len(known) <= 6 and _apart(known) else round_numbers(known[0] / 1.2, known[-1] * 1.2)
        labels = [f"{tick:,g}" for tick in ticks]
        if None in positions:
            ticks, labels = [*ticks, whole], [*labels, "all"]
        set_ticks(axis.xaxis, ticks, labels)
    elif len(known) <= 6:
        set_ticks(axis.xaxis, known)


def _apart(values: Sequence[float]) -> bool:
    """Tell whether neighbours on a log axis leave room for their labels."""
    gaps = np.diff(np.log(values))
    return bool((gaps > 0.12 * (np.log(values[-1]) - np.log(values[0]))).all())
