"""A metric against the class-size threshold K or the augmentation fraction p."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gitdist.report.comparison import (
    MAX_SETTINGS,
    Comparison,
    Replicate,
    ReplicateKey,
    Report,
    extra_labels,
    field_title,
    setting_label,
)
from gitdist.report.figures.hover import add_hover, set_hover, value_text
from gitdist.report.figures.style import INK, Drawn, Picture, add_legend, new_axes, round_numbers, set_ticks, style_of
from gitdist.report.metrics import METRICS, SHARE
from gitdist.report.records import Split
from gitdist.report.statistics import Interval, interval
from gitdist.study.trial_status import format_value

_LEVEL_STYLES = ((0, (4, 2)), (0, (1, 1)), (0, (6, 2, 1, 2)))


def parameter_figures(report: Report, field: str) -> Iterator[Picture]:
    """Yield the figures of all metrics against ``threshold`` or ``fraction`` if several values of it were tried.

    Settings that agree in all other fields are one line, with the 95 % interval over replicates; too many lines or none
    make no figure, see ``slice_figures``. Settings without the field are horizontal lines.
    """
    for comparison in report.comparisons:
        for metric in comparison.compared:
            figure = _draw(comparison, field, metric)
            if figure is not None:
                title = METRICS[metric].title_under(comparison.ekld_under)
                caption = (
                    f"Dependence of {title} on the {field_title(field).split(' (')[0]}, {comparison.trials_split} "
                    "split, means with 95 % interval; horizontal lines are settings without this field."
                )
                yield Picture(f"{metric.replace('_', '-')}-by-{field}-{comparison.slug}", caption, figure)


def _draw(comparison: Comparison, field: str, metric: str) -> Figure | None:
    split = comparison.trials_split
    measured = [each for each in comparison.trials if metric in each.trial.splits[split].metrics]
    trials = [each for each in measured if field in each.trial.params]
    values = {each.trial.params[field] for each in trials}
    if len(values) < 2:
        return None
    known = sorted(value for value in values if value is not None)
    positions = {value: value for value in known} | ({None: 2 * max(known, default=1)} if None in values else {})
    lines = _lines(trials, positions, field, metric, split)
    if not lines:
        return None
    others = [one for one in comparison.settings if field not in one.replicates[0].trial.params]
    levels = {one.label: level for one in others if (level := one.mean(metric, split))}
    figure, (axis,) = new_axes(comparison.title, height=3.2 + 0.2 * (len(lines) + len(levels)))
    names = {x: format_value(value) for value, x in positions.items()}
    drawn: list[Drawn] = []
    for index, (label, line) in enumerate(lines.items()):
        means = [value.mean for value in line.values()]
        halves = [value.half_width or 0.0 for value in line.values()]
        error = halves if any(halves) else None
        drawn.append(axis.errorbar(list(line), means, yerr=error, **style_of(index), capsize=3, label=label))
        add_hover(axis, line, means, [f"{label}, {field} {names[x]}; {value_text(metric, line[x])}" for x in line])
    for index, (label, level) in enumerate(levels.items()):
        drawn.append(straight := axis.axhline(level.mean, color=INK, linestyle=_LEVEL_STYLES[index % 3], label=label))
        set_hover(straight, f"{label}; {value_text(metric, level)}")
        if level.ends is not None and len(levels) == 1:
            axis.axhspan(*level.ends, color=INK, alpha=0.08, linewidth=0)
    _set_x_ticks(axis, field, positions)
    axis.set_xlabel(field_title(field))
    axis.set_ylabel(METRICS[metric].label(comparison.ekld_under))
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, 0.0), min(high, 1.02) if METRICS[metric].unit == SHARE else high)
    add_legend(figure, drawn)
    return figure


def _lines(
    trials: Sequence[Replicate], positions: Mapping[float | None, float], field: str, metric: str, split: Split
) -> dict[str, dict[float, Interval]]:
    """Return the lines of a figure by label, x rising; empty if they are too many or have one point each."""
    groups: dict[tuple[str, tuple[str, ...]], dict[float, dict[ReplicateKey, float]]] = {}
    for each in trials:
        rest = {name: value for name, value in each.trial.setting.items() if name != field}
        label = setting_label(rest) if rest else "trials"
        line = groups.setdefault((label, extra_labels(each.study)), {})
        replicates = line.setdefault(positions[each.trial.params[field]], {})
        replicates.setdefault(each.key, each.trial.splits[split].metrics[metric])
    if len(groups) > MAX_SETTINGS or all(len(line) < 2 for line in groups.values()):
        return {}
    labels = [label for label, _ in groups]
    return {
        f"{label} ({', '.join(extra)})" if labels.count(label) > 1 and extra else label: {
            x: interval(list(line[x].values())) for x in sorted(line)
        }
        for (label, extra), line in groups.items()
    }


def _set_x_ticks(axis: Axes, field: str, positions: Mapping[float | None, float]) -> None:
    known = sorted(value for value in positions if value is not None)
    if field == "threshold" and known:
        axis.set_xscale("log")
        gaps = np.diff(np.log(known))
        fit = len(known) <= 6 and bool((gaps > 0.12 * np.log(known[-1] / known[0])).all())
        ticks = known if fit else round_numbers(known[0] / 1.2, known[-1] * 1.2)
        labels = [f"{tick:,g}" for tick in ticks]
        if None in positions:
            ticks, labels = [*ticks, positions[None]], [*labels, "all"]
        set_ticks(axis.xaxis, ticks, labels)
    elif len(known) <= 6:
        set_ticks(axis.xaxis, known)
