"""What the numbers say, in plain words; no more than they say."""

from collections.abc import Sequence

from gitdist.report.grouping import MAX_SETTINGS, Line, Panel
from gitdist.report.metrics import METRICS, SEVERAL
from gitdist.report.records import StudyRecord
from gitdist.report.size_curves import size_correlation
from gitdist.report.statistics import Interval

_CLEAR = 0.3  # a rank correlation that is nearer to zero is called no dependence


def findings(studies: Sequence[StudyRecord], panels: Sequence[Panel]) -> list[str]:
    """Return the sentences that a report begins with.

    Args:
        studies: all of them.
        panels: what is shown of them.
    """
    told = [_counts(studies), *(f"{study.spec.name}: {note}" for study in studies for note in study.notes)]
    for panel in panels:
        told += _invariance(panel)
        told += _best(panel)
        told += _gaps(panel)
    return told


def _counts(studies: Sequence[StudyRecord]) -> str:
    finished = sum(len(study.finished) for study in studies)
    total = sum(len(study.trials) for study in studies)
    whole = counted(len(studies), "study", "studies")
    if not total:
        return f"{whole} without trials: the generator's draws are shown."
    unfinished = "" if all(study.summary for study in studies) else "; not all studies have ended yet"
    return f"{whole}, {finished} of {counted(total, 'trial')} finished{unfinished}."


def _invariance(panel: Panel) -> list[str]:
    """Say under which settings per-class eKLD depends on class size; where T differs, that nothing is compared."""
    if panel.ekld_under == SEVERAL:
        return [
            f"{panel.title}: eKLD and consistency were measured under different generators, so settings are not "
            "compared in them."
        ]
    under: dict[str, list[str]] = {}
    for line in panel.lines:
        correlation = size_correlation(line, "ekld", panel.split)
        if correlation is not None:
            told = f"{line.label} (rank correlation {_signed(correlation.mean, 2)})"
            under.setdefault(_way(correlation), []).append(told)
    if not under:
        return []
    ways = "; it ".join(f"{way} under {listed(lines)}" for way, lines in under.items())
    return [f"{panel.title}: with growing class size, per-class {METRICS['ekld'].told(panel.ekld_under)} {ways}."]


def _way(correlation: Interval) -> str:
    if abs(correlation.mean) < _CLEAR:
        return "does not clearly change"
    return "falls" if correlation.mean < 0 else "rises"


def _signed(value: float, decimals: int) -> str:
    return f"{value:+.{decimals}f}".replace("-", "−")


def listed(parts: Sequence[str]) -> str:
    """Return parts as an enumeration: ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _best(panel: Panel) -> list[str]:
    """Say which setting has the highest balanced accuracy, and whether that is more than chance would give."""
    name = "balanced_accuracy"
    means = [(line, list(line.values(name, panel.split).values())) for line in panel.lines]
    ranked = sorted(((sum(v) / len(v), line) for line, v in means if v), key=lambda item: -item[0])
    if len(ranked) < 2:
        return []
    (mean, best), (_, second) = ranked[:2]
    where = f"{panel.split} split" + (", which it was chosen on" if panel.searched and panel.split != "test" else "")
    first = f"{panel.title}: {best.label} has the highest balanced accuracy ({mean:.3f}, {where})"
    difference = best.minus(second, name, panel.split)
    return [f"{first}, {_compared(difference, second)}."]


def _gaps(panel: Panel) -> list[str]:
    """State the gap between the best trial and the baseline of each study; of many studies on one data set nothing."""
    if len(panel.studies) > MAX_SETTINGS:
        return []
    return [
        f"{study.spec.name}: {gap.sentence(METRICS[gap.metric].told(study.spec.ekld_under))}.".replace("gap -", "gap −")
        for study in panel.studies
        for gap in study.gaps
        if gap.difference is not None
    ]


def _compared(difference: Interval | None, second: Line) -> str:
    if difference is None:
        return f"followed by {second.label}, which has no replicate in common with it"
    if difference.mean <= 0:
        return (
            f"not confirmed by the {counted(difference.n, 'replicate')} in common with {second.label} "
            f"(mean difference {_signed(difference.mean, 3)})"
        )
    told = f"{difference.mean:.3f} above {second.label}"
    if difference.half is None:
        return f"{told}; with one replicate nothing is known of chance"
    width = f"{told} ± {difference.half:.3f} over {difference.n} pairs"
    told = "an interval without zero" if difference.excludes_zero else "which may be chance"
    return f"{width}, {told}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 trial``, ``2 trials``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
