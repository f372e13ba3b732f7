"""Which trials are replicates of one setting, and which settings are compared.

studies --same data set, any version--> Comparison --same setting, any seeds and version--> Setting
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from gitdist.report.metrics import COMPARED, METRICS, SEVERAL
from gitdist.report.records import ClassInfo, ReportedStudy, ReportedTrial, Split
from gitdist.report.statistics import Interval, interval, paired_difference, rank_correlation
from gitdist.spec import MunitSpec
from gitdist.spec.campaign import short_names
from gitdist.spec.search import METHOD
from gitdist.study.trial_status import format_value, short_name

MAX_SETTINGS = 7
"""Settings in one figure; if there are more, only the best of each method is shown."""

_FIELDS = {"threshold": "class-size threshold K (images)", "fraction": "augmentation fraction p (share of a batch)"}
_REPLICATE = "replicate"  # an axis of labels that change several of the following together
_REPLICATED = ("data.version", "trial.seed", "seed", "generator.seed", "stream.seed", _REPLICATE)
_OF_DATA = ("data.nuisance", "data.source")


class ReplicateKey(NamedTuple):
    """What replicates of a setting differ in; None where the value has no influence.

    A trial without generated images depends neither on the generator's seed nor on the stream's, and only a learned
    generator has a seed.
    """

    trial_seed: int
    data_version: int
    generator_seed: int | None = None
    stream_seed: int | None = None

    def matches(self, other: "ReplicateKey") -> bool:
        """Tell whether two trainings agree in everything that influences both."""
        return all(None in values or values[0] == values[1] for values in zip(self, other, strict=True))


@dataclass(frozen=True, eq=False)
class Replicate:
    """A finished trial and its study."""

    study: ReportedStudy
    trial: ReportedTrial

    @property
    def key(self) -> ReplicateKey:
        """Seeds and data version."""
        spec, augmented = self.study.spec, self.trial.augmented
        # Under a learned T the metrics of invariance depend on the generator even without generated training images.
        generated = augmented or spec.data.nuisance == "none"
        return ReplicateKey(
            trial_seed=self.trial.seed,
            data_version=spec.data.version,
            generator_seed=_generator_seed(self.study) if generated else None,
            stream_seed=spec.stream.seed if augmented else None,
        )

    @property
    def classes(self) -> ClassInfo:
        """The classes of its data set."""
        assert self.trial.classes is not None, "only finished trials are replicates"
        return self.trial.classes


@dataclass(frozen=True, eq=False, kw_only=True)
class Setting:
    """A setting with its replicates; ``index`` is that of its colour and marker, the same in all figures."""

    label: str
    replicates: tuple[Replicate, ...]
    index: int = 0

    @property
    def augmented(self) -> bool:
        """Whether its trainings used generated images."""
        return self.replicates[0].trial.augmented

    @property
    def sees_nuisance(self) -> bool:
        """Whether its trainings saw images under the true nuisance: an upper bound."""
        return self.replicates[0].study.sees_nuisance(self.replicates[0].trial)

    def values(self, metric: str, split: Split) -> dict[ReplicateKey, float]:
        """Return a metric by replicate, without those that lack it."""
        found = {each.key: each.trial.metric(split, metric) for each in self.replicates}
        return {key: value for key, value in found.items() if value is not None}

    def mean(self, metric: str, split: Split) -> Interval | None:
        """Return the mean of a metric over the replicates that have it; None if there are none."""
        values = list(self.values(metric, split).values())
        return interval(values) if values else None

    def difference(self, other: "Setting", metric: str, split: Split) -> Interval | None:
        """Return the mean difference to another setting over matching replicates; None if there are none."""
        return paired_difference(self.values(metric, split), other.values(metric, split), ReplicateKey.matches)

    def by_class_size(self, metric: str, split: Split) -> dict[int, Interval]:
        """Return a per-class metric by class size, the largest first; empty if it was not measured.

        Versions of a data set give a size to different classes. So the value of a replicate at a size is the mean over
        its classes of that size, and the interval is over replicates.
        """
        measured = self.measured(metric, split)
        sizes = sorted(set(measured[0].classes.sizes.tolist()), reverse=True) if measured else []
        means = {size: [_mean_at_size(each, metric, split, size) for each in measured] for size in sizes}
        return {size: interval(values) for size, values in means.items() if not np.isnan(values).any()}

    def size_correlation(self, metric: str, split: Split) -> Interval | None:
        """Return the rank correlation of a per-class metric with class size; None if no replicate has one."""
        found = [
            rank_correlation(each.classes.sizes.astype(np.float64), each.trial.splits[split].per_class[metric])
            for each in self.measured(metric, split)
        ]
        defined = [value for value in found if not math.isnan(value)]
        return interval(defined, limits=(-1.0, 1.0)) if defined else None

    def measured(self, metric: str, split: Split) -> list[Replicate]:
        """Return the replicates with a per-class metric; a damaged file of a trial may lack it."""
        return [each for each in self.replicates if metric in each.trial.splits[split].per_class]


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """The settings that were tried on one data set.

    If there are too many to draw (``searched``), ``settings`` are the baseline and the best of each method, by their
    metrics on ``split``. ``table_settings`` are all settings if they come from grids and are known on ``split``, else
    ``settings``. ``trials`` are all finished ones without the baselines, by their metrics on ``trials_split``: test if
    all of them were evaluated there.
    """

    title: str
    studies: tuple[ReportedStudy, ...]
    settings: tuple[Setting, ...]
    table_settings: tuple[Setting, ...]
    trials: tuple[Replicate, ...]
    searched: bool
    split: Split
    trials_split: Split

    @property
    def slug(self) -> str:
        """The title as part of a file name."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def ekld_under(self) -> str:
        """The T of eKLD, as in ``StudySpec``; ``SEVERAL`` if studies of one replicate differ in it."""
        first, *others = {study.spec.ekld_under for study in self.studies}
        generators = {((study.spec.data.version, _generator_seed(study)), study.generator) for study in self.studies}
        differ = first != "nuisance" and len(generators) > len({replicate for replicate, _ in generators})
        return SEVERAL if others or differ else first

    @property
    def compared(self) -> tuple[str, ...]:
        """The metrics in which settings are compared: those of invariance only under one T."""
        return tuple(name for name in COMPARED if self.ekld_under != SEVERAL or not METRICS[name].of_invariance)


@dataclass(frozen=True, eq=False)
class Report:
    """What figures, tables and sentences are made from."""

    studies: Sequence[ReportedStudy]

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """One comparison per data set."""
        return compare(self.studies)

    @property
    def compared_studies(self) -> list[ReportedStudy]:
        """The studies with finished trials, except where many share one data set."""
        return [study for each in self.comparisons if len(each.studies) <= MAX_SETTINGS for study in each.studies]

    @property
    def searched_studies(self) -> list[ReportedStudy]:
        """Those of ``compared_studies`` whose settings are too many to compare each."""
        compared = self.compared_studies
        return [study for each in self.comparisons if each.searched for study in each.studies if study in compared]


def compare(studies: Sequence[ReportedStudy]) -> tuple[Comparison, ...]:
    """Return one comparison per data set, in the order of the studies; studies without finished trials are left out."""
    by_data: dict[tuple[Any, ...], list[ReportedStudy]] = {}
    first_paths: dict[str, str | None] = {}  # of data sets that lie in several folders
    for study in studies:
        if study.finished:
            data, classes = study.spec.data, Replicate(study, study.finished[0]).classes
            path = data.path if study.fingerprint is None else first_paths.setdefault(study.fingerprint, data.path)
            sizes = tuple(sorted(classes.sizes.tolist(), reverse=True))
            by_data.setdefault((data.source, data.nuisance, sizes, path), []).append(study)
    titles = _titles(list(by_data))
    comparisons = [_comparison(title, members) for title, members in zip(titles, by_data.values(), strict=True)]
    labels = list(dict.fromkeys(setting.label for each in comparisons for setting in each.settings))
    return tuple(
        replace(each, settings=tuple(replace(one, index=labels.index(one.label)) for one in each.settings))
        for each in comparisons
    )


def setting_label(params: Mapping[str, Any]) -> str:
    """Return a setting for reading: its method, then the other parameters."""
    parts = [str(params[METHOD])] if METHOD in params else []
    parts += [f"{short_name(name)} {format_value(params[name])}" for name in params if name != METHOD]
    return ", ".join(parts) or "the study's setting"


def field_title(name: str) -> str:
    """Return the title of a searched field, for an axis."""
    return _FIELDS.get(name, name.replace("_", " "))


def extra_labels(study: ReportedStudy) -> tuple[str, ...]:
    """Return the labels that distinguish a study from others on the same data, apart from versions and seeds."""
    left_out = (*_REPLICATED, *_OF_DATA)
    short = short_names({*study.labels, *left_out})
    return tuple(
        value if isinstance(value, str) else f"{short[axis]} {format_value(value)}"
        for axis, value in study.labels.items()
        if axis not in left_out
    )


def _mean_at_size(replicate: Replicate, metric: str, split: Split, size: int) -> float:
    values = replicate.trial.splits[split].per_class[metric][replicate.classes.sizes == size]
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _generator_seed(study: ReportedStudy) -> int | None:
    generator = study.spec.generator
    return generator.seed if isinstance(generator, MunitSpec) else None


def _titles(keys: Sequence[tuple[Any, ...]]) -> list[str]:
    plain = [source if nuisance == "none" else f"{source}, {nuisance}" for source, nuisance, *_ in keys]
    sized = [
        f"{title}, {sizes[0]:,} to {sizes[-1]:,} images" if plain.count(title) > 1 else title
        for title, (_, _, sizes, _) in zip(plain, keys, strict=True)
    ]
    return [
        f"{title} ({sized[:index].count(title) + 1})" if sized.count(title) > 1 else title
        for index, title in enumerate(sized)
    ]


class _Labelled(NamedTuple):
    """A trial with the label of its setting; trials with equal label, ``params`` and labels are replicates."""

    label: str
    params: str
    replicate: Replicate


def _comparison(title: str, studies: Sequence[ReportedStudy]) -> Comparison:
    trials = tuple(Replicate(study, trial) for study in studies for trial in study.finished)
    searched = len({(_params_key(each.trial), extra_labels(each.study)) for each in trials}) > MAX_SETTINGS
    baselines = [
        _Labelled("baseline", "", Replicate(study, study.finished_baseline))
        for study in studies
        if study.finished_baseline
    ]
    all_trials = [
        _Labelled(setting_label(trial.setting), _params_key(trial), Replicate(study, trial))
        for study in studies
        for trial in _ordered(study)
    ]
    every = _settings([*baselines, *all_trials])
    settings = _settings([*baselines, *_best_trials(studies)]) if searched else every
    split = _common_split([replicate for setting in settings for replicate in setting.replicates])
    all_known = split == _common_split([replicate for setting in every for replicate in setting.replicates])
    all_grids = all(study.spec.search.algorithm == "grid" for study in studies)
    return Comparison(
        title=title,
        studies=tuple(studies),
        settings=settings,
        table_settings=every if all_grids and all_known else settings,
        trials=trials,
        searched=searched,
        split=split,
        trials_split=_common_split(trials),
    )


def _settings(trials: Sequence[_Labelled]) -> tuple[Setting, ...]:
    """Return the settings of trials; equal labels are followed by those of their studies. A replicate counts once."""
    groups: dict[tuple[str, str, tuple[str, ...]], dict[ReplicateKey, Replicate]] = {}
    for label, params, replicate in trials:
        group = groups.setdefault((label, params, extra_labels(replicate.study)), {})
        group.setdefault(replicate.key, replicate)
    labels = [label for label, _, _ in groups]
    return tuple(
        Setting(
            label=f"{label} ({', '.join(extra)})" if labels.count(label) > 1 and extra else label,
            replicates=tuple(group.values()),
        )
        for (label, _, extra), group in groups.items()
    )


def _best_trials(studies: Sequence[ReportedStudy]) -> list[_Labelled]:
    """Return, per study and method, the trials of the feasible setting with the best mean objective on validation."""
    found = []
    for study in studies:
        methods: dict[str | None, dict[str, list[ReportedTrial]]] = {}
        for trial in _ordered(study):
            methods.setdefault(trial.params.get(METHOD), {}).setdefault(_params_key(trial), []).append(trial)
        for method, settings in methods.items():
            feasible = [trials for trials in settings.values() if all(trial.feasible for trial in trials)]
            # of equal settings, the one that the study calls the best, which was evaluated on test
            best = min(
                feasible or settings.values(),
                key=lambda trials: (_cost(study, trials), all(each.trial.number not in study.best for each in trials)),
            )
            label = "best setting" if method is None else method if len(settings) == 1 else f"{method}, best setting"
            found += [_Labelled(label, "", Replicate(study, trial)) for trial in best]
    return found


def _ordered(study: ReportedStudy) -> list[ReportedTrial]:
    """Return the finished trials by their setting: choices in the study's order, numbers rising."""

    def position(trial: ReportedTrial) -> tuple[float, ...]:
        return tuple(
            -1.0
            if name not in trial.setting
            else float(dimension.choice.index(trial.setting[name]) if dimension.choice else trial.setting[name])
            for name, dimension in study.spec.search.space.items()
        )

    return sorted(study.finished, key=position)


def _cost(study: ReportedStudy, trials: Sequence[ReportedTrial]) -> float:
    """Return the mean of the first objective, with the sign for which less is better."""
    values = [value for trial in trials if (value := trial.metric("validation", study.objective)) is not None]
    if not values:
        return math.inf
    mean = sum(values) / len(values)
    return -mean if study.spec.search.directions[0] == "maximize" else mean


def _common_split(replicates: Sequence[Replicate]) -> Split:
    return "test" if all("test" in replicate.trial.splits for replicate in replicates) else "validation"


def _params_key(trial: ReportedTrial) -> str:
    return json.dumps(trial.setting, sort_keys=True)
