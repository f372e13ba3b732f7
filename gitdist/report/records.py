"""Studies and their trials as a report shows them, read from ledger and files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gitdist.data.longtail import Groups, size_groups
from gitdist.spec import StudySpec
from gitdist.spec.search import METHOD, SEED
from gitdist.study.files.json_files import ConfirmationResult, Description, ResultOnTest, read_json
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.files.samples import read_samples
from gitdist.study.files.times import GENERATOR as GENERATOR_SPAN
from gitdist.study.files.times import Span, Times
from gitdist.study.gap import SPLITS, Gap, find_gaps
from gitdist.study.status import study_notes
from gitdist.study.study import GENERATOR, Study
from gitdist.study.summary import read_summary
from gitdist.study.trial_status import trial_state
from gitdist.trial.epoch_row import EpochRow
from gitdist.trial.metrics import group_accuracies

Split = Literal["validation", "test"]

PER_CLASS = ("accuracy", "ekld", "right_ekld", "consistency")


@dataclass(frozen=True, eq=False)
class ClassInfo:
    """The classes of a data set: names, training images (int64 ``[C]``) and shot groups.

    ``distinct`` counts the training images without copies (int64 ``[C]``); version 0.5.0 did not record it.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    groups: Groups
    distinct: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class SplitMetrics:
    """The metrics of a trial on one split, by name without the split (``balanced_accuracy``, ``few_ekld``).

    ``per_class`` has those of ``PER_CLASS`` that were measured, float64 ``[C]``, NaN for a class without images.
    """

    metrics: Mapping[str, float]
    per_class: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportedTrial:
    """A trial or the baseline; ``params`` are the searched ones, ``seed`` is that of the training.

    ``links`` is ``repeat_of`` or ``replicate_of`` with the number of a trial that trains the same. ``augmented`` says
    whether the trial used generated images; otherwise it depends neither on the generator nor on the stream.
    ``feasible`` is false if it, or the mean of its replicates, violates a constraint of the search. ``curve`` is the
    first objective on validation by epoch; ``span`` says when it ran.
    """

    trial: TrialId
    state: str
    params: Mapping[str, Any]
    seed: int
    augmented: bool = True
    epoch: int = 0
    reason: str | None = None
    links: Mapping[str, int] = field(default_factory=dict)
    feasible: bool = True
    classes: ClassInfo | None = None
    splits: Mapping[Split, SplitMetrics] = field(default_factory=dict)
    curve: Mapping[int, float] = field(default_factory=dict)
    span: Span = Span()

    @property
    def setting(self) -> dict[str, Any]:
        """The parameters without the seed."""
        return {name: value for name, value in self.params.items() if name != SEED}

    def metric(self, split: Split, name: str) -> float | None:
        """Return a metric; None if it was not measured."""
        return self.splits[split].metrics.get(name) if split in self.splits else None

    @property
    def named_metrics(self) -> dict[str, float]:
        """The metrics of both splits by their name in rows: ``val/ekld``, ``test/ekld``."""
        return {
            f"{prefix}/{name}": value
            for split, prefix in SPLITS.items()
            if split in self.splits
            for name, value in self.splits[split].metrics.items()
        }

    @property
    def finished(self) -> bool:
        """Whether the trial finished and its metrics and classes are known."""
        return self.state == "finished" and "validation" in self.splits and self.classes is not None


@dataclass(frozen=True, eq=False, kw_only=True)
class ReportedStudy:
    """A study, running or finished.

    ``labels`` identify it within its campaign; ``best`` are the trials on the Pareto front on validation; ``samples``
    is a PNG; ``generator`` is the artifact of its weights or all that determines its draws; ``fingerprint`` is that of
    the data set; ``confirmations`` are those of its trials, see ``ConfirmationResult``; ``generator_span`` says when
    the generator was trained, unless it came from the store.
    """

    spec: StudySpec
    labels: Mapping[str, Any]
    trials: tuple[ReportedTrial, ...] = ()
    baseline: ReportedTrial | None = None
    best: tuple[int, ...] = ()
    summary: Mapping[str, Any] | None = None
    samples: bytes | None = None
    generator: str | None = None
    fingerprint: str | None = None
    notes: tuple[str, ...] = ()
    confirmations: tuple[Mapping[str, Any], ...] = ()
    generator_span: Span = Span()

    @property
    def finished(self) -> tuple[ReportedTrial, ...]:
        """The finished trials."""
        return tuple(trial for trial in self.trials if trial.finished)

    @property
    def finished_baseline(self) -> ReportedTrial | None:
        """The baseline, if it finished."""
        return self.baseline if self.baseline is not None and self.baseline.finished else None

    @property
    def best_trial(self) -> ReportedTrial | None:
        """The best trial in the first objective of those on the Pareto front; None if there is none."""
        known = {trial: value for trial, value in self.objective_values.items() if trial.trial.number in self.best}
        choose = max if self.spec.search.directions[0] == "maximize" else min
        return choose(known, key=known.__getitem__) if known else None

    def sees_nuisance(self, trial: ReportedTrial) -> bool:
        """Tell whether a trial has trained on images under the true nuisance, as an upper bound."""
        by_generator = trial.augmented and self.spec.generator.kind == "oracle"
        return by_generator or self.spec.trial_of(trial.params).true_nuisance

    @property
    def gaps(self) -> list[Gap]:
        """The gaps between the baseline and the best trial in each objective; empty if no trial finished."""
        best, baseline = self.best_trial, self.finished_baseline
        if best is None:
            return []
        return find_gaps(
            self.spec.search.direction_by_objective, best.named_metrics, baseline.named_metrics if baseline else None
        )

    @property
    def objective(self) -> str:
        """The first objective, without its split."""
        return self.spec.search.objectives[0].removeprefix("val/")

    @property
    def objective_values(self) -> dict[ReportedTrial, float]:
        """The first objective on validation of the finished trials that have it."""
        values = {trial: trial.metric("validation", self.objective) for trial in self.finished}
        return {trial: value for trial, value in values.items() if value is not None}

    @property
    def varied_fields(self) -> list[str]:
        """The searched fields, without the seed, that have several values among the finished trials."""
        values = {name: {repr(trial.params.get(name)) for trial in self.finished} for name in self.spec.search.space}
        return [name for name, found in values.items() if len(found) > 1 and name != SEED]

    @property
    def compares_methods(self) -> bool:
        """Whether its finished trials differ in the method and seed alone."""
        return self.varied_fields == [METHOD]


def read_study(study: Study, labels: Mapping[str, Any]) -> ReportedStudy:
    """Return a study as its ledger and files have it now; ``labels`` identify it within its campaign."""
    paths, spec, ledger = study.paths, study.spec, study.ledger
    states, owner = study.trial_states(), study.owner()
    records = {TrialId("trial", record.number): record for record in ledger.trials()}
    feasible = study.feasible_trials()
    times, objective = Times(paths), spec.search.objectives[0]
    described = (read_json(paths.description(trial), Description) for trial in states)
    classes = _class_info(next((each["classes"] for each in described if each and each.get("classes")), None), spec)
    trials: dict[TrialId, ReportedTrial] = {}
    for trial, (params, outcome) in states.items():
        rows = read_rows(paths.rows(trial))
        trials[trial] = ReportedTrial(
            trial=trial,
            state=trial_state(paths, trial, outcome, owner),
            params=dict(params),
            seed=int(spec.changes(params).get(SEED, spec.trial.seed)),
            augmented=any(row.draws for row in rows),
            epoch=rows[-1].epoch if rows else 0,
            reason=outcome.reason if outcome else None,
            links=records[trial].links if trial in records else {},
            feasible=trial.number is None or feasible[trial.number],
            classes=classes,
            splits=_read_splits(rows, read_json(paths.test(trial), ResultOnTest), classes) if classes else {},
            curve={row.epoch: row.metrics[objective] for row in rows if objective in row.metrics},
            span=times.span(str(trial)),
        )
    baseline = trials.pop(BASELINE, None)
    files = sorted(paths.confirmations.glob("*.json"))
    return ReportedStudy(
        spec=spec,
        labels=dict(labels),
        trials=tuple(trials.values()),
        baseline=baseline,
        best=tuple(record.number for record in study.best_trials()),
        summary=read_summary(paths),
        samples=read_samples(paths),
        generator=ledger.get_attr(GENERATOR),
        fingerprint=ledger.get_attr("data"),
        notes=tuple(study_notes(study)),
        confirmations=tuple(found for file in files if (found := read_json(file, ConfirmationResult))),
        generator_span=times.span(GENERATOR_SPAN),
    )


def split_metrics(
    metrics: Mapping[str, Any], per_class: Mapping[str, Any], prefix: str, groups: Groups
) -> SplitMetrics:
    """Return the metrics in a trial's row or test file, and the means of invariance over shot groups."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in per_class.items() if values is not None}
    found = {
        name.removeprefix(prefix): float(value)
        for name, value in metrics.items()
        if name.startswith(prefix) and isinstance(value, int | float)
    }
    for name in arrays.keys() - {"accuracy"}:
        # A group with a class that has images but no value gets no mean: trials would be compared over other classes.
        missing = np.isnan(arrays[name]) & ~np.isnan(arrays["accuracy"])
        means = group_accuracies(arrays[name], groups)
        found |= {
            f"{group}_{name}": mean for group, mean in means.items() if not missing[groups.as_dict()[group]].any()
        }
    return SplitMetrics(found, arrays)


def _read_splits(
    rows: Sequence[EpochRow], tested: Mapping[str, Any] | None, classes: ClassInfo
) -> dict[Split, SplitMetrics]:
    """Return a trial's metrics by split, without those of another number of classes: a file was exchanged."""
    splits: dict[Split, SplitMetrics] = {}
    evaluated = next((row for row in reversed(rows) if row.metrics), None)
    if evaluated is not None:
        per_class = {name: evaluated.per_class.get(f"{name}_per_class") for name in PER_CLASS}
        if _are_of(per_class, classes):
            splits["validation"] = split_metrics(evaluated.metrics, per_class, "val/", classes.groups)
    if tested is not None:
        per_class = {name: tested.get(f"{name}_per_class") for name in PER_CLASS}
        if _are_of(per_class, classes):
            splits["test"] = split_metrics(tested["metrics"], per_class, "test/", classes.groups)
    return splits


def _are_of(per_class: Mapping[str, Sequence[float | None] | None], classes: ClassInfo) -> bool:
    """Return whether lists per class have a value for each class; without the accuracy there are no others."""
    lists = [values for values in per_class.values() if values is not None]
    return all(len(values) == len(classes.names) for values in lists) and (not lists or bool(per_class["accuracy"]))


def _class_info(described: Mapping[str, Any] | None, spec: StudySpec) -> ClassInfo | None:
    if not described:
        return None
    distinct = described.get("distinct")
    return ClassInfo(
        names=tuple(described["names"]),
        sizes=np.asarray(described["sizes"], dtype=np.int64),
        groups=size_groups(described["sizes"], spec.data.groups),
        distinct=None if distinct is None else np.asarray(distinct, dtype=np.int64),
    )
