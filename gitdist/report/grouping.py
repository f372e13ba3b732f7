"""Which trials are replicates of one setting, and which settings are shown beside each other.

studies --one data set, whatever its version--> panel --one setting, whatever its seeds and version--> line
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gitdist.report.metrics import METRICS, OBJECTIVES, SEVERAL
from gitdist.report.records import Classes, Split, StudyRecord, TrialRecord
from gitdist.report.statistics import Interval, paired
from gitdist.spec import MunitSpec
from gitdist.spec.campaign import short_names
from gitdist.spec.search import METHOD
from gitdist.study.monitoring.display import format_value

MAX_SETTINGS = 7
"""Settings that are shown beside each other; of more, the best of each method is."""

_SHORT = {"threshold": "K", "fraction": "p"}
_FIELDS = {"threshold": "class-size threshold K (images)", "fraction": "augmentation fraction p (share of a batch)"}
_REPLICATE = "replicate"  # an axis of labels that change several of the following together
_REPLICATED = ("data.version", "trial.seed", "seed", "generator.seed", "stream.seed", _REPLICATE)
_OF_DATA = ("data.nuisance", "data.source")


class ReplicateKey(NamedTuple):
    """What replicates of a setting differ in; None where the value has no influence.

    A trial without draws depends neither on the generator's seed nor on the stream's, and only a learned generator has
    a seed.
    """

    trial_seed: int
    data_version: int
    generator_seed: int | None = None
    stream_seed: int | None = None

    def matches(self, other: "ReplicateKey") -> bool:
        """Tell whether two trainings agree in everything that has an influence on both."""
        return all(None in values or values[0] == values[1] for values in zip(self, other, strict=True))


@dataclass(frozen=True, eq=False)
class Replicate:
    """A finished trial and the study that it belongs to."""

    study: StudyRecord
    trial: TrialRecord

    @property
    def key(self) -> ReplicateKey:
        """Seeds and data version: what replicates of a setting differ in."""
        spec, augmented = self.study.spec, self.trial.augmented
        # Under a learned T the measures of invariance depend on the generator even without draws.
        generated = augmented or spec.data.nuisance == "none"
        return ReplicateKey(
            trial_seed=self.trial.seed,
            data_version=spec.data.version,
            generator_seed=generator_seed(self.study) if generated else None,
            stream_seed=spec.stream.seed if augmented else None,
        )

    @property
    def classes(self) -> Classes:
        """The classes of its data set."""
        assert self.trial.classes is not None, "only finished trials are replicates"
        return self.trial.classes


@dataclass(frozen=True, eq=False, kw_only=True)
class Line:
    """A setting with its replicates; ``index`` says how it is drawn, in all figures alike."""

    label: str
    replicates: tuple[Replicate, ...]
    index: int = 0

    def values(self, metric: str, split: Split) -> dict[ReplicateKey, float]:
        """Return a metric by replicate, of those that have it."""
        found = {each.key: each.trial.value(split, metric) for each in self.replicates}
        return {key: value for key, value in found.items() if value is not None}

    def minus(self, other: "Line", metric: str, split: Split) -> Interval | None:
        """Return the mean difference to another setting over pairs of matching replicates; None without any."""
        return paired(self.values(metric, split), other.values(metric, split), ReplicateKey.matches)


@dataclass(frozen=True, eq=False, kw_only=True)
class Panel:
    """What was found on one data set.

    ``searched`` says that the settings are too many to be drawn each, so that ``lines`` are the best of each method
    and the baseline; ``settings`` are all of them even then, where grids were searched and all are known on ``split``,
    else ``lines``. Both are shown on ``split``; ``trials``, all that finished but the baselines, on ``trials_split``:
    test where all of them were evaluated there.
    """

    title: str
    studies: tuple[StudyRecord, ...]
    lines: tuple[Line, ...]
    settings: tuple[Line, ...]
    trials: tuple[Replicate, ...]
    searched: bool
    split: Split
    trials_split: Split

    @property
    def slug(self) -> str:
        """The title as part of a file's name."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def ekld_under(self) -> str:
        """The T of eKLD, as ``StudySpec`` has it; ``SEVERAL`` where studies of one replicate differ in it."""
        first, *others = {study.spec.ekld_under for study in self.studies}
        drawn = {((study.spec.data.version, generator_seed(study)), study.generator) for study in self.studies}
        differ = first != "nuisance" and len(drawn) > len({replicate for replicate, _ in drawn})
        return SEVERAL if others or differ else first

    @property
    def compared(self) -> tuple[str, ...]:
        """The metrics in which its settings are compared: those of invariance only under one T."""
        return tuple(name for name in OBJECTIVES if self.ekld_under != SEVERAL or not METRICS[name].of_invariance)

    @property
    def classes(self) -> Classes:
        """The classes of the first study's data set; of other versions other classes are small."""
        return self.lines[0].replicates[0].classes


def make_panels(studies: Sequence[StudyRecord]) -> tuple[Panel, ...]:
    """Return what is to be shown beside each other, data set by data set; of studies without finished trials nothing.

    Args:
        studies: in the order that they were named.
    """
    by_data: dict[tuple[Any, ...], list[StudyRecord]] = {}
    first_paths: dict[str, str | None] = {}  # of data sets that lie in several folders
    for study in studies:
        if study.finished:
            path = study.spec.data.path
            path = path if study.fingerprint is None else first_paths.setdefault(study.fingerprint, path)
            by_data.setdefault(_data_key(study, path), []).append(study)
    titles = _titles(list(by_data))
    panels = [_panel(title, members) for title, members in zip(titles, by_data.values(), strict=True)]
    labels = list(dict.fromkeys(line.label for panel in panels for line in panel.lines))
    return tuple(
        replace(panel, lines=tuple(replace(line, index=labels.index(line.label)) for line in panel.lines))
        for panel in panels
    )


def describe_setting(params: Mapping[str, Any]) -> str:
    """Return a setting for reading: its method, then the other parameters."""
    parts = [str(params[METHOD])] if METHOD in params else []
    parts += [f"{_SHORT.get(name, name)} {format_value(params[name])}" for name in params if name != METHOD]
    return ", ".join(parts) or "the study's setting"


def field_title(name: str) -> str:
    """Return what a searched field is called on an axis."""
    return _FIELDS.get(name, name.replace("_", " "))


def sort_key(study: StudyRecord, setting: Mapping[str, Any]) -> tuple[float, ...]:
    """Return where a setting stands: by the study's order of choices, numbers rising."""
    key = []
    for name, dimension in study.spec.search.space.items():
        if name not in setting:
            key.append(-1.0)
        elif dimension.choice:
            key.append(float(dimension.choice.index(setting[name])))
        else:
            key.append(float(setting[name]))
    return tuple(key)


def common_split(replicates: Sequence[Replicate]) -> Split:
    """Return test where all of the trials were evaluated on it, else validation."""
    return "test" if all("test" in replicate.trial.measures for replicate in replicates) else "validation"


def generator_seed(study: StudyRecord) -> int | None:
    """Return the seed of a study's learned generator; None for a generator without one."""
    generator = study.spec.generator
    return generator.seed if isinstance(generator, MunitSpec) else None


def extra_labels(study: StudyRecord) -> tuple[str, ...]:
    """Return the labels that tell a study from others on the same data, versions and seeds aside."""
    left_out = (*_REPLICATED, *_OF_DATA)
    short = short_names({*study.labels, *left_out})
    return tuple(
        value if isinstance(value, str) else f"{short[axis]} {format_value(value)}"
        for axis, value in study.labels.items()
        if axis not in left_out
    )


def _data_key(study: StudyRecord, path: str | None) -> tuple[Any, ...]:
    classes = study.finished[0].classes
    sizes = () if classes is None else tuple(sorted(classes.sizes.tolist(), reverse=True))
    return study.spec.data.source, study.spec.data.nuisance, sizes, path


def _titles(keys: Sequence[tuple[Any, ...]]) -> list[str]:
    plain = [source if nuisance == "none" else f"{source}, {nuisance}" for source, nuisance, *_ in keys]
    sized = [
        f"{title}, {sizes[0]:,} to {sizes[-1]:,} images" if plain.count(title) > 1 else title
        for title, (_, _, sizes, _) in zip(plain, keys, strict=True)
    ]
    return [
        f"{title} ({sized[:place].count(title) + 1})" if sized.count(title) > 1 else title
        for place, title in enumerate(sized)
    ]


def _panel(title: str, studies: Sequence[StudyRecord]) -> Panel:
    trials = tuple(Replicate(study, trial) for study in studies for trial in study.finished)
    searched = len({(_identity(each.trial), extra_labels(each.study)) for each in trials}) > MAX_SETTINGS
    every = _lines([*_baselines(studies), *_all_settings(studies)])
    lines = _lines([*_baselines(studies), *_chosen(studies)]) if searched else every
    split = common_split([replicate for line in lines for replicate in line.replicates])
    grids = all(study.spec.search.algorithm == "grid" for study in studies)
    known = split == common_split([replicate for line in every for replicate in line.replicates])
    return Panel(
        title=title,
        studies=tuple(studies),
        lines=lines,
        settings=every if grids and known else lines,
        trials=trials,
        searched=searched,
        split=split,
        trials_split=common_split(trials),
    )


@dataclass(frozen=True, eq=False)
class _Shown:
    """A trial that is shown, and what makes it a replicate of another: label, ``identity`` and labels of its study."""

    label: str
    identity: str
    replicate: Replicate


def _lines(shown: Sequence[_Shown]) -> tuple[Line, ...]:
    """Return a line for each setting; equal labels get the labels of their studies. A replicate counts once."""
    groups: dict[tuple[str, str, tuple[str, ...]], dict[ReplicateKey, Replicate]] = {}
    for each in shown:
        group = groups.setdefault((each.label, each.identity, extra_labels(each.replicate.study)), {})
        group.setdefault(each.replicate.key, each.replicate)
    labels = [label for label, _, _ in groups]
    return tuple(
        Line(
            label=f"{label} ({', '.join(extra)})" if labels.count(label) > 1 and extra else label,
            replicates=tuple(group.values()),
        )
        for (label, _, extra), group in groups.items()
    )


def _baselines(studies: Sequence[StudyRecord]) -> list[_Shown]:
    found = [Replicate(study, study.baseline) for study in studies if study.baseline and study.baseline.finished]
    return [_Shown("baseline", "", replicate) for replicate in found]


def _all_settings(studies: Sequence[StudyRecord]) -> list[_Shown]:
    return [
        _Shown(describe_setting(trial.setting), _identity(trial), Replicate(study, trial))
        for study in studies
        for trial in sorted(study.finished, key=lambda trial: sort_key(study, trial.setting))
    ]


def _chosen(studies: Sequence[StudyRecord]) -> list[_Shown]:
    """Return, for each study and method, the trials of the setting with the best mean objective on validation."""
    shown = []
    for study in studies:
        methods: dict[str | None, dict[str, list[TrialRecord]]] = {}
        for trial in sorted(study.finished, key=lambda trial: sort_key(study, trial.setting)):
            methods.setdefault(trial.params.get(METHOD), {}).setdefault(_identity(trial), []).append(trial)
        for method, settings in methods.items():
            best = min(settings.values(), key=lambda trials: _cost(study, trials))
            label = "best setting" if method is None else method if len(settings) == 1 else f"{method}, best setting"
            shown += [_Shown(label, "", Replicate(study, trial)) for trial in best]
    return shown


def _cost(study: StudyRecord, trials: Sequence[TrialRecord]) -> float:
    """Return the mean of the first objective, its sign so that less is better."""
    values = [value for trial in trials if (value := trial.value("validation", study.objective)) is not None]
    if not values:
        return math.inf
    mean = sum(values) / len(values)
    return -mean if study.spec.search.directions[0] == "maximize" else mean


def _identity(trial: TrialRecord) -> str:
    return json.dumps(trial.setting, sort_keys=True)
