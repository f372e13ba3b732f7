"""What a report is made of: plain records of studies and their trials, read from ledger and files."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gitdist.data.longtail import Groups, size_groups
from gitdist.disk import read_object
from gitdist.spec import StudySpec
from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.gap import SPLITS, Gap, find_gaps
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.trial_states import GENERATOR, best_trials, trial_states
from gitdist.study.notes import study_notes
from gitdist.study.status import present_owner, state_now
from gitdist.study.summary import read_summary
from gitdist.trial.metrics import group_accuracies

Split = Literal["validation", "test"]

SEED = "seed"
PER_CLASS = ("accuracy", "ekld", "right_ekld", "consistency")


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a data set: names, training images of each (int64 ``[C]``) and shot groups.

    ``distinct`` int64 ``[C]`` are the training images of each class that are not copies of another one; None where this
    was not recorded, as in studies of version 0.5.0 and before.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    groups: Groups
    distinct: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Measures:
    """What a trial reached on one split.

    ``metrics`` by name without the split (``balanced_accuracy``, ``few_ekld``); ``per_class`` float64 ``[C]`` of those
    of ``PER_CLASS`` that were measured, NaN where a class has no images.
    """

    metrics: Mapping[str, float]
    per_class: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False, kw_only=True)
class TrialRecord:
    """A trial or the baseline; ``params`` are those that were searched, ``seed`` is the training's.

    ``links`` has ``repeat_of`` or ``replicate_of``, the number of a trial that trains the same.
    ``augmented`` says whether it took draws: without any it depends neither on the generator nor on the stream.
    """

    trial: TrialId
    state: str
    params: Mapping[str, Any]
    seed: int
    augmented: bool = True
    epoch: int = 0
    reason: str | None = None
    links: Mapping[str, int] = field(default_factory=dict)
    classes: Classes | None = None
    measures: Mapping[Split, Measures] = field(default_factory=dict)

    @property
    def setting(self) -> dict[str, Any]:
        """The parameters in which replicates agree: all but the seed."""
        return {name: value for name, value in self.params.items() if name != SEED}

    def value(self, split: Split, metric: str) -> float | None:
        """Return a metric on a split; None where it was not measured."""
        return self.measures[split].metrics.get(metric) if split in self.measures else None

    @property
    def named_metrics(self) -> dict[str, float]:
        """The metrics of both splits by their name in rows: ``val/ekld``, ``test/ekld``."""
        return {
            f"{prefix}/{name}": value
            for split, prefix in SPLITS.items()
            if split in self.measures
            for name, value in self.measures[split].metrics.items()
        }

    @property
    def finished(self) -> bool:
        """Whether the trial ended well, with measures and classes to show."""
        return self.state == "finished" and "validation" in self.measures and self.classes is not None


@dataclass(frozen=True, eq=False, kw_only=True)
class StudyRecord:
    """A study, running or finished.

    ``labels`` say which of a campaign's studies it is, or hold its name; ``best`` are the numbers of the trials that no
    other is better than on validation; ``samples`` is the PNG picture of its generator's draws; ``generator`` names
    that generator, by its weights' artefact or all that determines its draws; ``fingerprint`` is the data set's;
    ``notes`` are those of ``study_notes``.
    """

    spec: StudySpec
    labels: Mapping[str, Any]
    trials: tuple[TrialRecord, ...] = ()
    baseline: TrialRecord | None = None
    best: tuple[int, ...] = ()
    summary: Mapping[str, Any] | None = None
    samples: bytes | None = None
    generator: str | None = None
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def finished(self) -> tuple[TrialRecord, ...]:
        """The trials that ended well."""
        return tuple(trial for trial in self.trials if trial.finished)

    @property
    def gaps(self) -> list[Gap]:
        """The gaps of the best trial in the first objective to the baseline; none before a trial has finished."""
        chosen = [trial for trial in self.finished if trial.trial.number in self.best]
        values = {trial.trial: trial.value("validation", self.objective) for trial in chosen}
        known = [trial for trial in chosen if values[trial.trial] is not None]
        if not known:
            return []
        better = max if self.spec.search.directions[0] == "maximize" else min
        best = better(known, key=lambda trial: values[trial.trial] or 0.0)
        whole = self.baseline is not None and self.baseline.finished
        baseline = self.baseline.named_metrics if self.baseline is not None and whole else None
        return find_gaps(self.spec.search.objectives, best.named_metrics, baseline)

    @property
    def objective(self) -> str:
        """The first objective, without its split."""
        return self.spec.search.objectives[0].removeprefix("val/")


def read_study(paths: StudyPaths, spec: StudySpec, ledger: Ledger, labels: Mapping[str, Any]) -> StudyRecord:
    """Return the record of a study.

    Args:
        paths: its files.
        spec: the study.
        ledger: its trials.
        labels: which study of its campaign it is; of a single study, its name.
    """
    states, owner = trial_states(paths, spec, ledger), present_owner(ledger)
    links = {TrialId("trial", record.number): record.links for record in ledger.trials()}
    found = (read_object(paths.trial(trial) / "trial.json") for trial in states)
    classes = _classes(next((each["classes"] for each in found if each and each.get("classes")), None), spec)
    records = {
        trial: replace(
            _read_trial(paths, spec, trial, params, outcome, classes),
            state=state_now(paths, trial, outcome, owner),
            links=links.get(trial, {}),
        )
        for trial, (params, outcome) in states.items()
    }
    baseline = records.pop(BASELINE, None)
    return StudyRecord(
        spec=spec,
        labels=dict(labels),
        trials=tuple(records.values()),
        baseline=baseline,
        best=tuple(record.number for record in best_trials(paths, spec, ledger)),
        summary=read_summary(paths),
        samples=_read_bytes(paths.samples),
        generator=ledger.get_attr(GENERATOR),
        fingerprint=ledger.get_attr("data"),
        notes=tuple(study_notes(paths, spec, ledger)),
    )


def make_measures(metrics: Mapping[str, Any], per_class: Mapping[str, Any], prefix: str, groups: Groups) -> Measures:
    """Return the measures in a trial's row or test file, with the means over shot groups of what needs a T.

    A group of which a class with images has no value, as without right answers, has no mean.

    Args:
        metrics: values by name, those of other prefixes among them.
        per_class: a list of C numbers, or None, by each of ``PER_CLASS`` that is there.
        prefix: ``val/`` or ``test/``.
        groups: the shot groups.
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in per_class.items() if values is not None}
    found = {
        name.removeprefix(prefix): float(value)
        for name, value in metrics.items()
        if name.startswith(prefix) and isinstance(value, int | float)
    }
    for name in arrays.keys() - {"accuracy"}:
        # A mean over other classes than another trial's is no measure beside it.
        lacking = np.isnan(arrays[name]) & ~np.isnan(arrays["accuracy"])
        means = group_accuracies(arrays[name], groups)
        found |= {
            f"{group}_{name}": mean for group, mean in means.items() if not lacking[groups.as_dict()[group]].any()
        }
    return Measures(found, arrays)


def _read_trial(
    paths: StudyPaths,
    spec: StudySpec,
    trial: TrialId,
    params: Mapping[str, Any],
    outcome: Outcome | None,
    classes: Classes | None,
) -> TrialRecord:
    rows = read_rows(paths.rows(trial))
    measures: dict[Split, Measures] = {}
    if classes is not None:
        evaluated = next((row for row in reversed(rows) if "val/balanced_accuracy" in row), None)
        if evaluated is not None:
            per_class = {name: evaluated.get(f"val/{name}_per_class") for name in PER_CLASS}
            measures["validation"] = make_measures(evaluated, per_class, "val/", classes.groups)
        tested = read_object(paths.test(trial))
        if tested is not None:
            per_class = {name: tested.get(f"{name}_per_class") for name in PER_CLASS}
            measures["test"] = make_measures(tested.get("metrics", {}), per_class, "test/", classes.groups)
    return TrialRecord(
        trial=trial,
        state=outcome.state if outcome else "open",
        params=dict(params),
        seed=int(spec.changes(params).get(SEED, spec.trial.seed)),
        augmented=any(row.get("draws") for row in rows),
        epoch=rows[-1]["epoch"] if rows else 0,
        reason=outcome.reason if outcome else None,
        classes=classes,
        measures=measures,
    )


def _classes(described: Mapping[str, Any] | None, spec: StudySpec) -> Classes | None:
    if not described:
        return None
    distinct = described.get("distinct")
    return Classes(
        names=tuple(described["names"]),
        sizes=np.asarray(described["sizes"], dtype=np.int64),
        groups=size_groups(described["sizes"], spec.data.groups),
        distinct=None if distinct is None else np.asarray(distinct, dtype=np.int64),
    )


def _read_bytes(place: Path) -> bytes | None:
    return place.read_bytes() if place.exists() else None
