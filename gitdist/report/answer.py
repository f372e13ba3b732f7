"""What a report begins with: a few sentences that say no more than the evidence, and the setting to copy.

A confirmation on fresh seeds comes first, then paired differences over replicates, then the gap of one seed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from gitdist.report.comparison import MAX_SETTINGS, Comparison, Report, Setting, setting_label
from gitdist.report.findings import baseline_notes, counted, listed, signed, variance_sources
from gitdist.report.metrics import NATS, SEVERAL, metric_of
from gitdist.report.records import ReportedStudy, ReportedTrial, Split
from gitdist.report.statistics import Interval, corrected
from gitdist.spec import TrialSpec
from gitdist.spec.search import METHOD, SEED
from gitdist.study.gap import find_gaps
from gitdist.study.trial_status import format_value

_SIGNS = {"threshold": "K", "fraction": "p"}


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Sentences on a data set or a study, which is ``about``.

    ``setting`` is the ``trial:`` block for a study file of the setting that the sentences name; None if they name none.
    """

    about: str
    sentences: tuple[str, ...]
    setting: str | None = None


def answers(report: Report) -> list[Answer]:
    """Return an answer for each data set with replicates, and for each study of the other data sets."""
    found: list[Answer] = []
    for comparison in report.comparisons:
        confirmed = [answer for study in comparison.studies for answer in _confirmed(study)]
        compared = _compared(comparison)
        if confirmed:
            found += confirmed
        elif compared is not None:
            found.append(compared)
        elif len(comparison.studies) <= MAX_SETTINGS:
            found += [_of_one_seed(study, comparison.ekld_under) for study in comparison.studies]
        else:
            sentence = (
                f"{len(comparison.studies)} studies without replicates of one setting, so no difference is shown."
            )
            found.append(Answer(about=comparison.title, sentences=(sentence,)))
    return found + [_without_result(study) for study in report.studies if not study.finished]


def describe_setting(params: Mapping[str, Any]) -> str:
    """Return a setting for a sentence: ``K = 15, p = 0.19, square-root``."""
    parts = [
        value if isinstance(value, str) else f"{_SIGNS.get(name, name)} = {_short(value)}"
        for name, value in params.items()
    ]
    return ", ".join(parts) or "the study's setting"


def _confirmed(study: ReportedStudy) -> list[Answer]:
    """Return what each confirmation of a study has found."""
    found = []
    for each in study.confirmations:
        sentences = [f"{describe_setting(each['setting'])}, on fresh seeds: {each['answer']}."]
        for metric in each["metrics"]:
            if (metric["metric"], metric["split"]) == ("ekld", "test") and study.objective != "ekld":
                old, new, difference = (Interval(**metric[name]) for name in ("baseline", "selected", "difference"))
                sentences.append(f"{_paired('ekld', old, new, difference, each['ekld_under'])}.")
        for optimism in each["optimism"]:
            title = metric_of(optimism["objective"]).title_under(each["ekld_under"])
            fresh = Interval(**optimism["fresh"])
            sentences.append(
                f"The search saw {title} {optimism['searched']:.3f} on validation; over the fresh seeds it is "
                f"{fresh.mean:.3f} ± {fresh.half_width:.3f}."
            )
        sentences += baseline_notes(study.spec, each["setting"])
        sentences.append(f"{each['scope'][0].upper()}{each['scope'][1:]}.")
        trial = next((one for one in study.trials if one.trial.number == each["trial"]), None)
        setting = _block(study, trial) if trial else None
        found.append(Answer(about=study.spec.name, sentences=tuple(sentences), setting=setting))
    return found


def _compared(comparison: Comparison) -> Answer | None:
    """Return the clearest gain over the reference in the first objective; None if no difference has an interval.

    It is called better only if its interval, corrected for the number of differences, leaves out 0.
    A setting that has seen the true nuisance is an upper bound, not a candidate.
    """
    split, first = comparison.split, comparison.studies[0]
    metric, direction = first.objective, first.spec.search.directions[0]
    if comparison.ekld_under == SEVERAL and metric_of(metric).of_invariance:
        metric, direction = "balanced_accuracy", "maximize"
    sign = 1.0 if direction == "maximize" else -1.0
    reference = _reference(comparison.settings, metric, sign)
    differences = {
        one: found
        for one in comparison.settings
        if one is not reference and not one.sees_nuisance and (found := one.difference(reference, metric, split))
    }
    known = {one: found for one, found in differences.items() if found.half_width is not None}
    gains = {one: _gain(sign, corrected(found, len(known))) for one, found in known.items()}
    if not gains:
        return None
    best = max(gains, key=gains.__getitem__)
    against = "the baseline" if reference.label == "baseline" else reference.label
    verdict = f"{'is' if gains[best] > 1 else 'is not shown to be'} better in {metric_of(metric).title} than"
    clearest = f", the clearest of {len(gains)} differences"
    if gains[best] > 1:
        others = f"{clearest}; an interval corrected for {len(gains)} (Bonferroni) leaves out 0 too"
    elif _gain(sign, known[best]) > 1:
        others = f"{clearest}; an interval corrected for {len(gains)} (Bonferroni) contains 0"
    else:
        others = f", and no clearer one of {len(gains)}"
    changes = [
        _paired(name, old, new, difference, comparison.ekld_under)
        for name in dict.fromkeys((metric, "balanced_accuracy", "ekld"))
        if name == metric or name in comparison.compared
        if (difference := best.difference(reference, name, split))
        and (old := reference.mean(name, split))
        and (new := best.mean(name, split))
    ]
    label, one = best.label, best.replicates[0]
    if comparison.searched:
        label = f"{label} ({describe_setting(one.trial.setting)}, chosen on validation)"
    pairs = counted(differences[best].n, "pair")
    return Answer(
        about=comparison.title,
        sentences=(
            _capitalised(f"{label} {verdict} {against}: {', '.join(changes)} on {split}."),
            f"In brackets: paired difference with 95 % interval, {pairs}{others if len(gains) > 1 else ''}.",
            *(
                baseline_notes(one.study.spec, one.study.spec.changes(one.trial.params))
                if against == "the baseline"
                else ()
            ),
            variance_sources(comparison),
        ),
        setting=_block(one.study, one.trial),
    )


def _gain(sign: float, difference: Interval) -> float:
    """Return a gain in half widths of its interval, which leaves out 0 from 1 on."""
    return sign * difference.mean / max(difference.half_width or 0.0, 1e-12)


def _reference(settings: Sequence[Setting], metric: str, sign: float) -> Setting:
    """Return the baseline, else the best setting without augmentation on validation, else the first one."""
    without = [one for one in settings if not one.augmented and not one.sees_nuisance]
    baseline = next((one for one in without if one.label == "baseline"), None)
    known = {one: sign * mean.mean for one in without if (mean := one.mean(metric, "validation"))}
    return baseline or (max(known, key=known.__getitem__) if known else (without or list(settings))[0])


def _of_one_seed(study: ReportedStudy, ekld_under: str) -> Answer:
    """Return the gap between the best trial and the baseline, or the training without augmentation."""
    best = _best(study)
    if best is None:
        sentence = "No finished trial meets the constraints of the search, so none is the best."
        return Answer(about=study.spec.name, sentences=(sentence,))
    reference, name = _counterpart(study, best)
    tested = [each.metric("test", study.objective) is not None for each in (best, reference) if each]
    split: Split = "test" if all(tested) else "validation"
    objectives = [each.removeprefix("val/") for each in study.spec.search.objectives]
    changes = [
        _change(metric, reference.metric(split, metric) if reference else None, new, ekld_under)
        for metric in dict.fromkeys((*objectives, "balanced_accuracy", "ekld"))
        if (new := best.metric(split, metric)) is not None
    ]
    so_far = "" if study.summary else f"so far, of {counted(len(study.finished), 'finished trial')}: "
    against = f" against {name}" if reference else ""
    verdict = _verdict(study, best, reference, split) if reference else name
    numbers = f"{', '.join(changes)} on {split}{', where it was chosen' if split == 'validation' else ''}"
    sentences = [f"{so_far}{_described(study, best)}{against}: {numbers}, one seed: {verdict}."]
    if reference is not None and reference is study.finished_baseline:
        sentences += baseline_notes(study.spec, study.spec.changes(best.params))
    if len(study.spec.search.objectives) > 1:
        front = listed([f"trial {number}" for number in study.best])
        title = metric_of(study.objective).title_under(ekld_under)
        sentences.append(
            f"Best in one objective or a trade-off: {front}; the one above is the best of them in {title}."
        )
    if study.spec.data.nuisance == "none" and best.metric(split, "ekld") is not None:
        sentences.append("No nuisance is known, so eKLD shows invariance to the draws of the generator alone.")
    return Answer(about=study.spec.name, sentences=tuple(map(_capitalised, sentences)), setting=_block(study, best))


def _best(study: ReportedStudy) -> ReportedTrial | None:
    """Return the best trial; of methods, the best that has not seen the true nuisance."""
    if METHOD not in study.spec.search.space:
        return study.best_trial
    values = study.objective_values
    fair = {trial: value for trial, value in values.items() if not study.sees_nuisance(trial)} or values
    choose = max if study.spec.search.directions[0] == "maximize" else min
    return choose(fair, key=fair.__getitem__) if fair else None


def _counterpart(study: ReportedStudy, best: ReportedTrial) -> tuple[ReportedTrial | None, str]:
    """Return what the best trial is compared with and its name, or None and why there is nothing."""
    if study.finished_baseline is not None:
        return study.finished_baseline, "the baseline"
    if METHOD in study.spec.search.space:
        for trial in study.finished:
            if not trial.augmented and not study.sees_nuisance(trial) and trial is not best:
                return trial, str(trial.params[METHOD])
    if study.baseline is None:
        return None, "there is no baseline to compare it with"
    return None, f"there is nothing to compare it with: the baseline is {study.baseline.state}"


def _verdict(study: ReportedStudy, best: ReportedTrial, reference: ReportedTrial, split: Split) -> str:
    """Return what the gap in the first objective is worth."""
    gaps = find_gaps(study.spec.search.direction_by_objective, best.named_metrics, reference.named_metrics)
    gap = next(each for each in gaps if each.split == split)
    assert gap.difference is not None, "both have the first objective"
    gain, error = gap.difference.value, gap.difference.standard_error
    gain, title = gain if gap.direction == "maximize" else -gain, metric_of(gap.metric).title
    if gain <= 0:
        return f"no gain in {title}"
    if METHOD in study.spec.search.space:
        return "with one seed per method this may be chance; add seeds to the search"
    confirm = f"confirm it with `gitdist confirm {study.spec.name}`"
    if not error:  # 0: each class is classified all right or all wrong
        return f"the standard error of the gap in {title} is unknown; {confirm}"
    if gain < error:
        return f"the gap in {title} is smaller than its standard error ({error:.3f}); {confirm}"
    return f"a gap in {title} of {gain / error:.1f} standard errors, which leave out the variance of seeds; {confirm}"


def _without_result(study: ReportedStudy) -> Answer:
    states = [trial.state for trial in study.trials]
    if not study.spec.search.total:
        sentence = "A generator without trials; its draws are shown."
    elif not states:
        sentence = "No trial has started."
    else:
        counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
        sentence = f"No trial has finished: {', '.join(counts)}."
    return Answer(about=study.spec.name, sentences=(sentence,))


def _described(study: ReportedStudy, trial: ReportedTrial) -> str:
    return (
        f"{describe_setting(trial.setting)} (trial {trial.trial})"
        if METHOD not in study.spec.search.space
        else setting_label(trial.setting)
    )


def _block(study: ReportedStudy, trial: ReportedTrial) -> str:
    """Return the fields that a trial changes as a ``trial:`` block; if it changes none, all that the study sets."""
    changes = study.spec.changes(trial.params)
    fields = changes or study.spec.trial.model_dump(mode="json", exclude_defaults=True)
    fields = {name: value for name, value in fields.items() if name != SEED}
    if not fields:
        fields = TrialSpec().model_dump(mode="json", include={"fraction", "threshold"})
    return yaml.safe_dump({"trial": fields}, sort_keys=False)


def _change(metric: str, old: float | None, new: float, ekld_under: str) -> str:
    """Return ``eKLD 0.033 → 0.018 (−45 %)``."""
    title = metric_of(metric).title_under(ekld_under)
    if old is None:
        return f"{title} {_number(new)}"
    share = (
        f" ({(new - old) / old:+.0%})".replace("%", " %").replace("-", "−")
        if metric_of(metric).unit == NATS and old > 0
        else ""
    )
    return f"{title} {_number(old)} → {_number(new)}{share}"


def _paired(metric: str, old: Interval, new: Interval, difference: Interval, ekld_under: str) -> str:
    """Return ``eKLD 0.033 → 0.018 (−0.015 ± 0.004)``."""
    title = metric_of(metric).title_under(ekld_under)
    return f"{title} {_number(old.mean)} → {_number(new.mean)} ({_interval(difference)})"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 0.01 or value == 0 else f"{value:.2g}"


def _interval(found: Interval) -> str:
    """Return ``−0.015 ± 0.004``, with two digits of a small half width."""
    if not found.half_width:
        return signed(found.mean, 3)
    decimals = max(3, 1 - math.floor(math.log10(found.half_width)))
    contains = ", contains 0" if abs(found.mean) <= found.half_width else ""
    return f"{signed(found.mean, decimals)} ± {found.half_width:.{decimals}f}{contains}"


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) and abs(value) < 10 else format_value(value)


def _capitalised(sentence: str) -> str:
    """Return a sentence with a capital, unless it begins with a name of ours or of the user's methods."""
    return sentence[0].upper() + sentence[1:] if sentence.startswith(("trial ", "best setting", "so far")) else sentence
