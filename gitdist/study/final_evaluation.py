"""The final evaluation: measures the trials chosen on validation on test data, and saves their models.

Only this phase reads test data.
"""

import math
from pathlib import Path
from typing import Any

import ray

from gitdist.errors import StudyError
from gitdist.study.files.json_files import ResultOnTest, read_json
from gitdist.study.files.layout import BASELINE, TrialId
from gitdist.study.files.rows import read_rows
from gitdist.study.ledger.records import list_trials
from gitdist.study.models import save_models
from gitdist.study.running_study import RunningStudy
from gitdist.study.scheduling.tasks import run_tasks
from gitdist.study.study import Study
from gitdist.study.worker.job import TrialContext, TrialJob
from gitdist.study.worker.trial_task import evaluate_on_test


def evaluate_chosen(running: RunningStudy, context: TrialContext, test_ekld: Path, max_concurrent: int) -> None:
    """Measure the Pareto front on validation, or all finished trials, and the baseline on test; save the models.

    Raises:
        StudyError: no trial has finished.
    """
    study, spec = running.study, running.spec
    best = study.ledger.pareto()
    finished = [record for record in study.ledger.trials() if record.state == "finished"]
    if not finished:
        raise _no_trial_finished(study)
    evaluate_all = spec.evaluation.test == "all"
    chosen = [number for point in best for number in point.numbers]
    match len(best):
        case 0:
            selection = "no trial meets the constraints"
        case 1:
            selection = f"best on validation: {list_trials(chosen)}"
        case _:
            selection = f"Pareto front on validation: {list_trials(chosen)}"
    running.display.log(f"{selection}; evaluating {'all' if evaluate_all else 'chosen'} trials on test")
    jobs: dict[TrialId, TrialJob] = {}
    for record in finished if evaluate_all else [record for record in finished if record.number in chosen]:
        trial = TrialId("trial", record.number)
        jobs[trial] = TrialJob.create(spec, trial, record.params, links=record.links)
    if study.is_baseline_trained():
        jobs[BASELINE] = TrialJob.create(spec, BASELINE, {})
    share = spec.resources.trial
    evaluate = ray.remote(num_cpus=share.cpu, num_gpus=share.num_gpus)(evaluate_on_test)

    def submit(trial: TrialId) -> Any:
        return evaluate.remote(context, jobs[trial], test_ekld)

    pairs = context.open_ekld(test_ekld)
    num_images = len(running.dataset.test.labels) + len(pairs.labels) * (1 + pairs.transformations)
    rounds = math.ceil(len(jobs) / max_concurrent)
    expected_s = rounds * num_images * max(_validation_speed(running, trial) for trial in jobs)
    num_done = 0

    def report() -> None:
        running.display.progress(
            "evaluating on test",
            num_done,
            len(jobs),
            unit="trials",
            rate_unit="images",
            each=num_images,
            expected_s=expected_s or None,
        )

    def on_poll() -> None:
        running.lease.check()
        report()

    report()
    for trial in run_tasks(submit, jobs, max_concurrent, "evaluate trial {} on test", on_poll):
        num_done += 1
        report()
        study.paths.pull(trial)
        running.tracker.test_evaluated(trial)
        if result := read_json(study.paths.test(trial), ResultOnTest):
            study.ledger.set_test_metrics(_title(trial), result["metrics"])
    for trial in save_models(study, running.dataset, running.display.log):
        running.tracker.model_saved(trial)


def _validation_speed(running: RunningStudy, trial: TrialId) -> float:
    """Return the seconds that a trial's last evaluation on validation took per image; 0 if unknown."""
    dataset, evaluation = running.dataset, running.spec.evaluation
    pairs = dataset.num_classes * evaluation.epoch_images_per_class
    num_images = len(dataset.validation.labels) + pairs * (1 + evaluation.epoch_transformations)
    rows = read_rows(running.study.paths.rows(trial))
    return next((row.evaluating_s for row in reversed(rows) if row.metrics), 0.0) / num_images


def _title(trial: TrialId) -> str:
    return str(trial) if trial.number is None else f"trial {trial}"


def _no_trial_finished(study: Study) -> StudyError:
    name, results = study.spec.name, study.paths.results
    if not study.ledger.trials():
        return StudyError(f"search.max_hours ended study '{name}' before its first trial; raise it")
    reason = next((record.reason for record in study.ledger.trials() if record.reason), None)
    if reason is None:
        return StudyError(
            f"every trial of study '{name}' was pruned; raise search.pruner.min_epochs in a new study", remedy="fork"
        )
    return StudyError(
        f"no trial of study '{name}' finished; the first failed with: {reason}",
        remedy="retry",
        name=name,
        results=results,
    )
