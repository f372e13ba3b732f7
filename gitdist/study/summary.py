"""The summary of a finished study: times, counts, and the best trial beside the baseline."""

import json
from collections.abc import Mapping
from typing import Any

from gitdist.spec import StudySpec
from gitdist.store import write_atomic
from gitdist.study.ledger import TrialRecord
from gitdist.study.paths import BASELINE, StudyPaths, TrialId
from gitdist.study.rows import read_rows

METRICS = ("balanced_accuracy", "many_accuracy", "medium_accuracy", "few_accuracy", "ekld")


def write_summary(
    paths: StudyPaths,
    spec: StudySpec,
    records: list[TrialRecord],
    best: TrialRecord | None,
) -> dict[str, Any]:
    """Write and return ``summary.json``.

    Args:
        paths: the study's files; rows and test metrics are read from the trial directories.
        spec: the study.
        records: all search trials.
        best: the finished trial with the best objective, if there is one.
    """
    trials = [BASELINE, *(TrialId("trial", record.number) for record in records)]
    rows = [row for trial in trials for row in read_rows(paths.rows(trial))]
    states = [record.state for record in records]
    summary = {
        "study": spec.name,
        "objective": spec.search.objective,
        "ekld_under": "generator" if spec.data.nuisance == "none" else "nuisance",
        "trials": {state: states.count(state) for state in sorted(set(states))},
        **_total(read_rows(paths.drivers)),
        **{name: sum(row.get(key, 0.0) for row in rows) for name, key in _SUMS.items()},
        "best": _chosen(paths, TrialId("trial", best.number), best.params) if best else None,
        "baseline": _chosen(paths, BASELINE, _baseline_params(spec)) if baseline_is_whole(paths, spec) else None,
    }
    summary["evaluating_s"] += sum(_test(paths, trial).get("evaluating_s", 0.0) for trial in trials)
    write_atomic(paths.summary, json.dumps(summary, indent=2).encode())
    return summary


def baseline_is_whole(paths: StudyPaths, spec: StudySpec) -> bool:
    """Tell whether the baseline was trained to its last epoch."""
    rows = read_rows(paths.rows(BASELINE))
    return bool(rows) and rows[-1]["epoch"] == spec.trial.epochs


_SUMS = {"training_s": "train_s", "evaluating_s": "evaluating_s", "waiting_s": "waiting_s"}


def _total(drivers: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the drivers' figures; an interrupted study has several."""
    return {name: sum(driver[name] for driver in drivers) for name in drivers[0]} if drivers else {}


def _chosen(paths: StudyPaths, trial: TrialId, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a trial's number, parameters, last validation metrics and test metrics; None if it has no row."""
    rows = [row for row in read_rows(paths.rows(trial)) if "val/balanced_accuracy" in row]
    if not rows:
        return None
    test = _test(paths, trial).get("metrics", {})
    return {
        "number": trial.number,
        "params": dict(params),
        "val": {f"val/{name}": rows[-1][f"val/{name}"] for name in METRICS if f"val/{name}" in rows[-1]},
        "test": {f"test/{name}": test[f"test/{name}"] for name in METRICS if f"test/{name}" in test},
    }


def _baseline_params(spec: StudySpec) -> dict[str, Any]:
    base = spec.trial.model_dump()
    return {**{name: base[name] for name in spec.search.space}, "fraction": 0.0}


def _test(paths: StudyPaths, trial: TrialId) -> dict[str, Any]:
    place = paths.trial(trial) / "test.json"
    found: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    return found
