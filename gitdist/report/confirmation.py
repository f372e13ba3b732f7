"""What a confirmation has found: paired differences over fresh seeds, and the optimism of the search."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gitdist.report.comparison import Replicate, Setting
from gitdist.report.metrics import METRICS, metric_of
from gitdist.report.records import ReportedStudy, Split
from gitdist.report.statistics import Interval, interval
from gitdist.spec.confirmation import BASELINE, SOURCES, Selected, Source
from gitdist.spec.objective import Direction
from gitdist.spec.search import METHOD

_SPLITS: tuple[Split, ...] = ("test", "validation")
_SOURCES: Mapping[Source, str] = {
    "training": "training seed",
    "generator": "generator and its draws",
    "data": "data version (splits, class sizes, nuisance)",
}


@dataclass(frozen=True, kw_only=True)
class PairedMetric:
    """A metric of the baseline and of the selected setting, and the paired difference: selected - baseline."""

    metric: str
    split: Split
    baseline: Interval
    selected: Interval
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Optimism:
    """An objective on validation as the search saw it (``searched``), and its mean over the fresh seeds.

    The search chose the best of many values, so its own is too good on average.
    """

    objective: str
    searched: float
    fresh: Interval

    @property
    def difference(self) -> float:
        """``searched - fresh``: positive for an objective to maximise if the search was too optimistic."""
        return self.searched - self.fresh.mean


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """A selected setting and the baseline, trained in pairs on fresh seeds.

    ``num_pairs`` are the pairs of which both trainings finished, ``num_planned`` are all.
    """

    selected: Selected
    varied: tuple[Source, ...]
    ekld_under: str
    num_pairs: int
    num_planned: int
    metrics: tuple[PairedMetric, ...]
    optimism: tuple[Optimism, ...]

    @property
    def fixed(self) -> tuple[Source, ...]:
        """The sources of variance that the intervals do not contain."""
        return tuple(source for source in SOURCES if source not in self.varied)

    @property
    def answer(self) -> str:
        """The paired difference in the first objective on test, in a sentence."""
        name, direction = next(iter(self._objectives.items()))
        found = next(each for each in self.metrics if (each.metric, each.split) == (name, "test"))
        difference = found.difference
        assert difference.half_width is not None, "there are at least two pairs"
        gain = difference.mean if direction == "maximize" else -difference.mean
        if abs(gain) <= difference.half_width:
            verdict = "no difference is shown: the interval contains 0"
        else:
            verdict = "better than the baseline" if gain > 0 else "worse than the baseline"
        amount = f"{difference.mean:+.4f} ± {difference.half_width:.4f}"
        title = metric_of(name).title_under(self.ekld_under)
        return f"{self.selected.label}, {title} on test, {self.num_pairs} pairs: {amount} (95 % interval); {verdict}"

    @property
    def scope(self) -> str:
        """What varied between the pairs, and what the intervals therefore do not contain."""
        sentence = f"varied: {', '.join(_SOURCES[source] for source in self.varied)}"
        return f"{sentence}; fixed: {', '.join(_SOURCES[source] for source in self.fixed)}" if self.fixed else sentence

    @property
    def _objectives(self) -> dict[str, Direction]:
        directions = self.selected.spec.search.direction_by_objective
        return {name.removeprefix("val/"): direction for name, direction in directions.items()}

    def to_json(self) -> dict[str, Any]:
        """Return all numbers; an interval has its mean, half of its width and the number of pairs."""
        return {
            "study": self.selected.spec.name,
            "trial": self.selected.trial,
            "setting": self.selected.setting,
            "varied": list(self.varied),
            "fixed": list(self.fixed),
            "pairs": self.num_pairs,
            "ekld_under": self.ekld_under,
            "answer": self.answer,
            "scope": self.scope,
            "metrics": [asdict(each) for each in self.metrics],
            "optimism": [{**asdict(each), "difference": each.difference} for each in self.optimism],
        }


def read_confirmation(
    selected: Selected, searched: Sequence[float], varied: Sequence[Source], studies: Sequence[ReportedStudy]
) -> Confirmation:
    """Return what the studies of a confirmation have found so far.

    Args:
        selected: the setting and its study.
        searched: its objectives as the search saw them.
        varied: what differs between pairs.
        studies: those of the confirmation.
    """
    by_label: dict[str, list[Replicate]] = {BASELINE: [], selected.label: []}
    for study in studies:
        for trial in study.finished:
            by_label[trial.params[METHOD]].append(Replicate(study, trial))
    baseline, setting = _pair(by_label[BASELINE], by_label[selected.label])
    objectives = [name.removeprefix("val/") for name in selected.spec.search.objectives]
    wanted = [(name, split) for split in _SPLITS for name in (METRICS if split == "test" else objectives)]
    return Confirmation(
        selected=selected,
        varied=tuple(varied),
        ekld_under=selected.spec.ekld_under,
        num_pairs=len(setting.replicates),
        num_planned=sum(study.spec.search.total for study in studies) // 2,
        metrics=tuple(found for name, split in wanted if (found := _compare(baseline, setting, name, split))),
        optimism=tuple(
            Optimism(objective=name, searched=value, fresh=mean)
            for name, value in zip(objectives, searched, strict=True)
            if (mean := setting.mean(name, "validation"))
        ),
    )


def _pair(baselines: Sequence[Replicate], selected: Sequence[Replicate]) -> tuple[Setting, Setting]:
    """Return the trainings that have a counterpart, of the baseline and of the selected setting."""

    def having_one(those: Sequence[Replicate], others: Sequence[Replicate]) -> tuple[Replicate, ...]:
        return tuple(each for each in those if any(each.key.matches(other.key) for other in others))

    return (
        Setting(label=BASELINE, replicates=having_one(baselines, selected)),
        Setting(label="selected", replicates=having_one(selected, baselines)),
    )


def _compare(baseline: Setting, selected: Setting, metric: str, split: Split) -> PairedMetric | None:
    """Return a metric over the pairs in which both trainings have it; None if there are none."""
    others = baseline.values(metric, split)
    pairs = [
        (value, others[match])
        for key, value in selected.values(metric, split).items()
        for match in others
        if key.matches(match)
    ]
    if not pairs:
        return None
    return PairedMetric(
        metric=metric,
        split=split,
        baseline=interval([other for _, other in pairs]),
        selected=interval([value for value, _ in pairs]),
        difference=interval([value - other for value, other in pairs]),
    )
