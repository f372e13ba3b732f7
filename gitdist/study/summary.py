"""The summary of a finished study: times, counts, the best trials and the baseline."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gitdist.disk import write_atomic
from gitdist.spec import StudySpec
from gitdist.spec.search import METHOD
from gitdist.study.files.attribution import SharedEpochs, own_rows, trainer_name
from gitdist.study.files.json_files import ResultOnTest, Summary, Usage, read_json
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.gap import summary_gaps
from gitdist.study.ledger.ledger import TrialRecord
from gitdist.study.ledger.repeats import unaugmented_trials
from gitdist.study.study import Study
from gitdist.trial.epoch_row import EpochRow


def write_summary(study: Study) -> dict[str, Any]:
    """Write and return ``summary.json``.

    ``best`` is the feasible finished trial with the best first objective, None if there is none; with several
    objectives ``pareto`` is the Pareto front. ``stop`` is the rule that ended the search early, and why. ``baseline``
    is None if its training failed, and missing if the study has none. With ``search.replicates`` the metrics of a point
    are those of its first trial; it also has the numbers of all, and the means of their objectives. ``gaps`` compare
    the best trial with the baseline, see ``Gap``. ``repeats`` are the trials that reuse the result of an earlier one,
    ``replicates`` those that trained the same as another, ``not_augmented`` those whose K or p augments no class.
    """
    paths, spec, ledger = study.paths, study.spec, study.ledger
    records, best, stop = ledger.trials(), ledger.best(), ledger.stop()
    trials = [BASELINE, *(TrialId("trial", record.number) for record in records)]
    rows = {trial: read_rows(paths.rows(trial)) for trial in trials}
    states = [record.state for record in records]
    chosen = [_describe_point(paths, record) for record in ledger.pareto()]
    summary = {
        "study": spec.name,
        "objectives": list(spec.search.objectives),
        "directions": list(spec.search.directions),
        "ekld_under": spec.ekld_under,
        "constraints": [str(each) for each in spec.search.constraints],
        "stop": asdict(stop) if stop else None,
        "trials": {state: states.count(state) for state in sorted(set(states))},
        "repeats": [_format_link(record, "repeat_of") for record in records if record.repeat_of is not None],
        "replicates": [_format_link(record, "replicate_of") for record in records if record.replicate_of is not None],
        "not_augmented": list(unaugmented_trials(paths, records)),
        **_costs(paths, rows),
        "best": _describe_point(paths, best) if best else None,
        "pareto": chosen if len(spec.search.objectives) > 1 else None,
        "ended_at": time.time(),
    }
    if spec.baseline:
        trained = study.is_baseline_trained()
        summary["baseline"] = _describe_trial(paths, BASELINE, baseline_params(spec)) if trained else None
    summary["gaps"] = [asdict(gap) for gap in summary_gaps(summary)]
    write_atomic(paths.summary, json.dumps(summary, indent=2).encode())
    paths.push(paths.summary)
    return summary


def _describe_point(paths: StudyPaths, record: TrialRecord) -> dict[str, Any] | None:
    """Return what ``_describe_trial`` does of a point's first trial, with the numbers of all if it has several."""
    described = _describe_trial(paths, TrialId("trial", record.number), record.params)
    if described is None or not record.replicates:
        return described
    return {**described, "replicates": list(record.replicates), "mean_objectives": list(record.objectives)}


def _format_link(record: TrialRecord, name: str) -> dict[str, int]:
    return {"trial": record.number, name: record.links[name]}


def read_summary(paths: StudyPaths) -> dict[str, Any] | None:
    """Return the summary; None if it is missing or damaged (the next run writes it again)."""
    return read_json(paths.summary, Summary)


def is_finished(study: Study) -> bool:
    """Return whether all trials have ended, and the summary and the results on test that it has are intact."""
    return study.all_ended() and read_summary(study.paths) is not None and not lost_tests(study)


def lost_tests(study: Study) -> list[TrialId]:
    """Return the trials that were evaluated on test according to the summary, but have no intact test.json."""
    summary = read_summary(study.paths) or {"best": None}
    chosen = [summary["best"], summary.get("baseline"), *(summary.get("pareto") or ())]
    points = [each.get("replicates") or [each["number"]] for each in chosen if each and each["test"]]
    numbers = dict.fromkeys(number for point in points for number in point)
    tested = [BASELINE if number is None else TrialId("trial", number) for number in numbers]
    return [trial for trial in tested if read_json(study.paths.test(trial), ResultOnTest) is None]


def last_metrics(paths: StudyPaths, trial: TrialId) -> dict[str, float]:
    """Return a trial's metrics of its last evaluated epoch (``val/...``) and on test; empty without such an epoch."""
    rows = [row for row in read_rows(paths.rows(trial)) if row.metrics]
    if not rows:
        return {}
    return {**rows[-1].metrics, **_read_test(paths, trial).get("metrics", {})}


def remove_summary(paths: StudyPaths) -> None:
    """Remove the summary if it exists."""
    paths.results.remove(paths.summary)


def _costs(paths: StudyPaths, rows: Mapping[TrialId, list[EpochRow]]) -> dict[str, Any]:
    """Return times and counts of the study's drivers and trials, and what sharing saved."""
    own = [row for trial, trial_rows in rows.items() for row in own_rows(trial_rows, trainer_name(paths, trial))]
    reused = (SharedEpochs.of_trial(paths, trial, trial_rows) for trial, trial_rows in rows.items())
    shared = [epochs for epochs in reused if epochs]
    tests = sum(_read_test(paths, trial).get("evaluating_s", 0.0) for trial in rows)
    drivers = _total_usage(paths)
    num_generated = drivers.get("generated_images", 0) + sum(row.generated for row in own)
    return {
        **drivers,
        "generated_images": num_generated,
        "training_s": sum(row.train_s for row in own),
        "waiting_s": sum(row.waiting_s for row in own),
        "evaluating_s": tests + sum(row.evaluating_s for row in own),
        "trained_epochs": len(own),
        "shared_epochs": sum(each.epochs for each in shared),
        "saved_s": sum(each.saved_s for each in shared),
    }


def _total_usage(paths: StudyPaths) -> dict[str, Any]:
    """Add up the usage of all drivers whose file is intact; an interrupted study has several."""
    drivers = [read_json(file, Usage) or {} for file in sorted(paths.usage.glob("*.json"))]
    return {name: sum(driver.get(name, 0) for driver in drivers) for name in Usage.model_fields}


def _describe_trial(paths: StudyPaths, trial: TrialId, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a trial's number, parameters, last validation metrics and test metrics; None if it has no row."""
    metrics = last_metrics(paths, trial)
    if not metrics:
        return None
    return {
        "number": trial.number,
        "params": dict(params),
        "val": {name: value for name, value in metrics.items() if name.startswith("val/")},
        "test": {name: value for name, value in metrics.items() if name.startswith("test/")},
    }


def baseline_params(spec: StudySpec) -> dict[str, Any]:
    """Return the baseline's values of the searched fields, and its fraction."""
    base = spec.trial.model_dump()
    return {**{name: base[name] for name in spec.search.space if name != METHOD}, "fraction": 0.0}


def _read_test(paths: StudyPaths, trial: TrialId) -> dict[str, Any]:
    return read_json(paths.test(trial), ResultOnTest) or {}  # if damaged, the trial is evaluated again if it is chosen
