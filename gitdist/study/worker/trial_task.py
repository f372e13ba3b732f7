"""The tasks of the cluster's workers: train one classifier, restore its lost epochs, evaluate it on test.

trial directory: trial.json (description), rows.jsonl (one row per epoch), checkpoints, test.json, error.txt, attempt
"""

import json
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import numpy as np

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, limit_to_share
from gitdist.disk import disk_errors, read_object, write_atomic
from gitdist.errors import StoreError
from gitdist.study.files.attribution import ReusedPrefix, trainer_name
from gitdist.study.files.fencing import Attempt, StaleAttempt
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import open_rows
from gitdist.study.worker.failures import describe_failure
from gitdist.study.worker.job import TrialContext, TrialJob
from gitdist.trial.checkpoint import completed_rows, copy_newest, load_classifier
from gitdist.trial.epoch_row import EpochRow
from gitdist.trial.evaluation import EkldSet, evaluate
from gitdist.trial.stages import train_in_stages
from gitdist.trial.training import TrialSetting

Report = Callable[[dict[str, Any]], None]


def run_trial(context: TrialContext, job: TrialJob, report: Report) -> None:
    """Train one classifier and report its epochs; training errors are reported, not raised.

    Reports are ``{"begun": True}`` at the start, then ``{"rows": [...]}``: the completed epochs of an earlier attempt
    or of a shared prefix together, then each epoch as it is trained. If training ends by an exception, the last report
    is that of ``describe_failure``. A stale attempt stops reporting.

    Args:
        context: the context that the study's trials share.
        job: which trial, and what it trains.
        report: receives the reports; ``ray.tune.report``.
    """
    report({"begun": True})
    limit_to_share(context.spec.resources.trial.cpu, context.spec.resources.trial.gpu)
    attempt = None
    directory = context.paths.trial(job.trial)
    try:
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        attempt = _begin_attempt(context, job.trial)
        with closing(_train(context, job, attempt)) as training:
            for rows in training:
                report({"rows": rows})
    except StaleAttempt:
        return
    except Exception as error:
        if attempt is None or not attempt.is_stale:
            report(_failure_report(error, directory, attempt))
    finally:
        context.results.discard_copy(directory)


def restore_epochs(context: TrialContext, job: TrialJob) -> None:
    """Retrain the lost epochs of an ended trial from its newest intact checkpoint."""
    limit_to_share(context.spec.resources.trial.cpu, context.spec.resources.trial.gpu)
    try:
        _train_silently(context, job)
    finally:
        context.results.discard_copy(context.paths.trial(job.trial))


def evaluate_on_test(context: TrialContext, job: TrialJob, test_ekld: Path) -> dict[str, Any]:
    """Return the test metrics of a trained trial; evaluate it only if test.json is missing.

    If the last epoch's checkpoint is damaged, the last epochs are retrained from an earlier checkpoint.

    Returns:
        ``metrics`` (``test/...``), what ``Evaluation.per_class`` returns, ``evaluated_at`` (unix time in seconds) and
        ``evaluating_s``.
    """
    directory, file = context.paths.trial(job.trial), context.paths.test(job.trial)
    try:
        context.results.pull(directory, checkpoints=True)
        stored = read_object(file)
        if stored:
            return stored
        started = time.perf_counter()
        limit_to_share(context.spec.resources.trial.cpu, context.spec.resources.trial.gpu)
        dataset, compute = _open_data(context, job)
        try:
            model = load_classifier(job.spec, dataset, directory, compute)
        except StoreError:
            _train_silently(context, job)
            model = load_classifier(job.spec, dataset, directory, compute)
        images = EkldSet.open(context.resolve_locally(test_ekld))
        evaluation = evaluate(model, dataset.test, images, dataset, compute, job.spec)
        result = {
            "metrics": evaluation.metrics("test"),
            **evaluation.per_class(),
            "evaluated_at": time.time(),
            "evaluating_s": time.perf_counter() - started,
        }
        write_atomic(file, json.dumps(result, indent=2).encode())
        context.results.push(file)
        return result
    finally:
        context.results.discard_copy(directory)


def write_description(paths: StudyPaths, job: TrialJob, dataset: Dataset, prefix: ReusedPrefix | None = None) -> None:
    """Write trial.json: the trial's spec, the prefix or result that it reuses, and the classes."""
    trial = job.trial
    description = {
        "title": f"{paths.name}, {f'trial {trial}' if trial.role == 'trial' else trial}",
        "role": trial.role,
        "number": trial.number,
        "spec": job.spec.model_dump(mode="json"),
        **job.links,
        "prefix": prefix.key if prefix else None,
        "prefix_epochs": prefix.epochs if prefix else None,
        "classes": {
            "names": list(dataset.class_names),
            "sizes": dataset.class_sizes.tolist(),
            "distinct": count_distinct_images(dataset),
        },
    }
    write_atomic(paths.description(trial), json.dumps(description, indent=2).encode())


def count_distinct_images(dataset: Dataset) -> list[int]:
    """Return the number of training images of each class, counting each image of the source once."""
    _, first = np.unique(dataset.train.source, return_index=True)
    counts: list[int] = np.bincount(dataset.train.labels[first], minlength=dataset.num_classes).tolist()
    return counts


def _begin_attempt(context: TrialContext, trial: TrialId) -> Attempt:
    context.results.pull_file(context.paths.identity)  # ``trainer_name`` contains it
    return Attempt.begin(context.paths.trial(trial), context.lease_epoch, context.results)


def _open_data(context: TrialContext, job: TrialJob) -> tuple[Dataset, Compute]:
    compute = Compute.resolve(job.spec.precision, context.spec.resources.trial.device)
    return Dataset.open(context.resolve_locally(context.dataset)), compute


def _train_silently(context: TrialContext, job: TrialJob) -> None:
    with closing(_train(context, job, _begin_attempt(context, job.trial))) as training:
        deque(training, maxlen=0)


def _failure_report(error: Exception, directory: Path, attempt: Attempt | None) -> dict[str, str]:
    report = describe_failure(error, directory)
    if attempt is None:
        return report
    if "failed" in report:
        with suppress(StoreError, StaleAttempt):  # the reason is reported even if its file cannot be pushed
            attempt.push()
    return {kind: attempt.results.describe(reason) for kind, reason in report.items()}


def _train(context: TrialContext, job: TrialJob, attempt: Attempt) -> Generator[list[EpochRow], None, None]:
    """Train; yield the completed rows from ``job.reported_epoch`` on, then each epoch's once it is in the rows file.

    A trial that repeats another one copies its result, and trains only epochs that the other's files lack.
    """
    dataset, compute = _open_data(context, job)
    if "repeat_of" in job.links:
        completed = _copy_result(context, TrialId("trial", job.links["repeat_of"]), attempt)
        if len(completed) == job.spec.epochs:
            write_description(context.paths, job, dataset)
            open_rows(attempt.directory / "rows.jsonl", completed).close()
            attempt.push()
            yield _unreported(completed, job)
            return
    with ExitStack() as stack:
        stream = None
        if job.spec.fraction > 0:
            stream = stack.enter_context(closing(context.open_draws(job.spec, dataset.num_classes)))
        setting = TrialSetting(
            compute=compute,
            stream=stream,
            ekld=EkldSet.open(context.resolve_locally(context.validation_ekld)),
            directory=attempt.directory,
            check=attempt.check,
            evaluation_every=context.spec.evaluation.every,
            trained_by=trainer_name(context.paths, job.trial),
            weights=context.open_weights(job.spec),
        )
        write_description(context.paths, job, dataset, ReusedPrefix.read(attempt.directory))
        store = context.store if context.spec.sharing.prefix else None
        if store is not None:
            stack.enter_context(store.pin_used(context.spec.name))

        def on_prefix(key: str, epochs: int) -> None:
            write_description(context.paths, job, dataset, ReusedPrefix(key, epochs))

        training = stack.enter_context(closing(train_in_stages(job.spec, dataset, setting, store, on_prefix)))
        completed = next(training)
        attempt.check()
        file = stack.enter_context(open_rows(attempt.directory / "rows.jsonl", completed))
        attempt.push()
        if completed:
            yield _unreported(completed, job)
        for rows in training:
            attempt.check()
            for row in rows:
                file.append(row.to_json())
            attempt.push()
            yield rows


def _unreported(completed: list[EpochRow], job: TrialJob) -> list[EpochRow]:
    """Return the completed rows from the last reported one on, at least the last row."""
    return [row for row in completed if row.epoch >= job.reported_epoch] or completed[-1:]


def _copy_result(context: TrialContext, original: TrialId, attempt: Attempt) -> list[EpochRow]:
    """Copy another trial's newest checkpoint unless this trial's is as new; return the rows of the newest."""
    source = context.paths.trial(original)
    context.results.pull(source, checkpoints=True)
    copy_newest(source, attempt.directory)
    context.results.discard_copy(source)
    attempt.check()
    return completed_rows(attempt.directory)
