"""Sentences about the numbers: the progress of studies, what was found, and which variance an interval contains."""

from collections.abc import Mapping, Sequence
from typing import Any

from gitdist.report.comparison import MAX_SETTINGS, Comparison, Replicate, Report, Setting
from gitdist.report.metrics import METRICS, SEVERAL, metric_of
from gitdist.report.records import ReportedStudy
from gitdist.report.statistics import Interval
from gitdist.spec import StudySpec
from gitdist.spec.search import METHOD, SEED
from gitdist.study.trial_status import format_value

ENOUGH_TRIALS = 20
"""Finished trials from which on the influence of the searched fields is shown: with fewer it is mostly chance."""

AUGMENTATION = {"fraction", "threshold", "threshold_kind", "true_nuisance", "seed"}
"""The fields of ``TrialSpec`` that say how images are augmented, and the seed."""

_CLEAR = 0.3  # a rank correlation closer to zero is not called a dependence

_DATA_VERSION, _GENERATOR_SEED = "data version", "generator seed"
_SOURCES = {  # by the field of ``ReplicateKey``
    "trial_seed": "training seed",
    "data_version": _DATA_VERSION,
    "generator_seed": _GENERATOR_SEED,
    "stream_seed": "stream seed",
}


def progress(report: Report) -> list[str]:
    """Return how many trials have finished, and the notes on the studies."""
    return [
        _counts(report.studies),
        *(f"{study.spec.name}: {note}" for study in report.studies for note in study.notes),
    ]


def few_trials_notes(report: Report) -> list[str]:
    """Return a line for each search with too few finished trials for its figures, or for importance and contours."""
    searches = [study for study in report.compared_studies if study.spec.search.space.keys() - {METHOD, SEED}]
    alone = [study for study in searches if len(study.finished) == 1]
    few = [study for study in report.searched_studies if len(study.finished) < ENOUGH_TRIALS]
    return [
        *(f"{study.spec.name}: the search is shown from 2 finished trials on; 1 has finished." for study in alone),
        *(
            f"{study.spec.name}: importance of the fields and contours are shown from {ENOUGH_TRIALS} finished trials "
            f"on; {len(study.finished)} have finished."
            for study in few
        ),
    ]


def findings(report: Report) -> list[str]:
    """Return sentences on all comparisons: dependence on class size, the highest accuracy, and gaps."""
    sentences: list[str] = []
    for comparison in report.comparisons:
        sentences += _invariance(comparison)
        sentences += _best(comparison)
        sentences += _gaps(comparison)
    return sentences


def variance_sources(comparison: Comparison) -> str:
    """Return which sources of variance the intervals of a comparison contain, and which they do not."""
    most = max(len(setting.replicates) for setting in comparison.settings)
    replicates = [each for setting in comparison.settings for each in setting.replicates]
    counts = {name: _num_values(replicates, field) for field, name in _SOURCES.items()}
    varied = {name: count for name, count in counts.items() if count > 1}
    if most == 1 or not varied:
        return "One replicate per setting, so no interval."
    fixed = [name for name, count in counts.items() if count == 1]
    sentence = f"Intervals contain the variance of {listed([f'{name} ({count})' for name, count in varied.items()])}"
    sentence += f", not of {' or '.join(fixed)}." if fixed else "."
    if any(each.trial.augmented and each.study.spec.stream.per_seed for each in replicates):
        sentence += " Each training seed has its own stream."
    if _DATA_VERSION in varied and counts[_GENERATOR_SEED]:
        sentence += " Each data version has its own generator."
    if most > min(varied.values()):
        sentence += " Replicates that share one of these values count as independent."
    return sentence


def evidence(comparison: Comparison) -> str:
    """Return the split and replicates that a figure of a comparison shows, and what its intervals contain."""
    return f"{replication(comparison)} {variance_sources(comparison)}"


def replication(comparison: Comparison) -> str:
    """Return the split and the number of replicates that a figure of a comparison shows."""
    counts = {len(setting.replicates) for setting in comparison.settings}
    most = f"{'up to ' if len(counts) > 1 else ''}{max(counts)} replicates per setting"
    replicates = "" if counts == {1} else f", {most}; shaded or error bar: 95 % interval of the mean"
    return f"{comparison.split.capitalize()} split{replicates}."


def baseline_notes(spec: StudySpec, setting: Mapping[str, Any]) -> list[str]:
    """Say in which other fields than those of augmentation the baseline of a study differs from a setting, if any.

    Args:
        spec: the study.
        setting: the fields of ``TrialSpec`` that the setting changes.
    """
    base = spec.trial.model_dump(mode="json")
    others = [
        f"{name} {format_value(base[name])}"
        for name, value in setting.items()
        if name not in AUGMENTATION and base[name] != value
    ]
    return (
        [f"The baseline has {listed(others)}, so not all of the difference is due to augmentation."] if others else []
    )


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 trial``, ``2 trials``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def signed(value: float, decimals: int) -> str:
    """Return a number with its sign; what rounds to zero has none."""
    text = f"{value:+.{decimals}f}".replace("-", "−")
    return text if text.strip("+−0.") else text[1:]


def listed(parts: Sequence[str]) -> str:
    """Return ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _num_values(replicates: Sequence[Replicate], field: str) -> int:
    return len({value for each in replicates if (value := getattr(each.key, field)) is not None})


def _counts(studies: Sequence[ReportedStudy]) -> str:
    finished = sum(len(study.finished) for study in studies)
    total = sum(len(study.trials) for study in studies)
    num_studies = counted(len(studies), "study", "studies")
    if not total:
        return f"{num_studies} without trials; generator samples are shown."
    unfinished = "" if all(study.summary for study in studies) else "; not all studies have finished"
    return f"{num_studies}, {finished} of {counted(total, 'trial')} finished{unfinished}."


def _invariance(comparison: Comparison) -> list[str]:
    """Say for which settings per-class eKLD depends on class size, if T is the same for all."""
    if comparison.ekld_under == SEVERAL:
        return [
            f"{comparison.title}: eKLD and consistency were measured under different generators, so settings are not "
            "compared in them."
        ]
    by_trend: dict[str, list[str]] = {}
    for setting in comparison.settings:
        correlation = setting.size_correlation("ekld", comparison.split)
        if correlation is not None:
            direction = "falls" if correlation.mean < 0 else "rises"
            trend = direction if abs(correlation.mean) >= _CLEAR else "does not clearly change"
            found = f"{setting.label} (rank correlation {signed(correlation.mean, 2)})"
            by_trend.setdefault(trend, []).append(found)
    if not by_trend:
        return []
    trends = "; it ".join(f"{trend} under {listed(settings)}" for trend, settings in by_trend.items())
    metric = METRICS["ekld"].title_under(comparison.ekld_under)
    return [f"{comparison.title}: with growing class size, per-class {metric} {trends}."]


def _best(comparison: Comparison) -> list[str]:
    """Name the setting with the highest balanced accuracy, and say whether chance alone could explain its lead."""
    name, split = "balanced_accuracy", comparison.split
    means = {setting: mean.mean for setting in comparison.settings if (mean := setting.mean(name, split))}
    if len(means) < 2:
        return []
    best, second = sorted(means, key=lambda setting: -means[setting])[:2]
    where = f"{split} split" + (", which it was chosen on" if comparison.searched and split != "test" else "")
    lead = _lead(best.difference(second, name, split), second)
    return [f"{comparison.title}: {best.label} has the highest balanced accuracy ({means[best]:.3f}, {where}), {lead}."]


def _lead(difference: Interval | None, second: Setting) -> str:
    if difference is None:
        return f"followed by {second.label}, with which it has no replicate in common"
    if difference.mean <= 0:
        return (
            f"not confirmed by the {counted(difference.n, 'replicate')} in common with {second.label} "
            f"(mean difference {signed(difference.mean, 3)})"
        )
    lead = f"{difference.mean:.3f} above {second.label}"
    if difference.half_width is None:
        return f"{lead}; with one replicate, this may be chance"
    verdict = "an interval without zero" if difference.mean > difference.half_width else "which may be chance"
    return f"{lead} ± {difference.half_width:.3f} over {difference.n} pairs, {verdict}"


def _gaps(comparison: Comparison) -> list[str]:
    """State the gap between the best trial and the baseline of each study, if there are few studies."""
    if len(comparison.studies) > MAX_SETTINGS:
        return []
    return [
        f"{study.spec.name}: {gap.sentence(metric_of(gap.metric).title_under(study.spec.ekld_under))}.".replace(
            "gap -", "gap −"
        )
        for study in comparison.studies
        for gap in study.gaps
        if gap.difference is not None
    ]
