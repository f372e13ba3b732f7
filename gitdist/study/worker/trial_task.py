"""What runs on the cluster's workers: one classifier training, and the final evaluation of one.

trial directory: trial.json (what it is), rows.jsonl (one row an epoch), checkpoints, test.json, error.txt, attempt
"""

import json
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gitdist.data.dataset import Dataset
from gitdist.device import Compute, limit_to_share
from gitdist.disk import disk_errors, read_object, write_atomic
from gitdist.errors import StoreError
from gitdist.spec import StudySpec, TrialSpec
from gitdist.stream.client import BlockClient
from gitdist.stream.draw_stream import BlockSource, DrawStream, LocalBlocks
from gitdist.study.files.attribution import ReusedPrefix, trainer_name
from gitdist.study.files.fencing import Attempt, StaleAttempt
from gitdist.study.files.layout import TrialId, open_store
from gitdist.study.files.rows import RowsFile
from gitdist.study.ledger.repeats import read_links
from gitdist.study.ledger.space import baseline_spec, trial_spec
from gitdist.study.worker.context import TrialContext
from gitdist.study.worker.failures import describe_failure
from gitdist.trial.checkpoint import completed_rows, copy_newest
from gitdist.trial.evaluation import EkldSet, evaluate
from gitdist.trial.stages import train_in_stages
from gitdist.trial.training import EpochRow, TrialSetting, load_classifier


def run_trial(context: TrialContext, config: Mapping[str, Any]) -> None:
    """Train one classifier, passing what ``trial_reports`` yields on to Tune, after a word that says who trains it.

    Args:
        context: what the study's trials share.
        config: ``role``, ``number`` and ``params`` of this trial, ``noted`` and ``links`` as in ``trial_reports``.
    """
    from ray import tune

    tune.report({"begun": True})
    trial = TrialId(config["role"], config["number"])
    links = config.get("links", {})
    with closing(trial_reports(context, trial, config["params"], config.get("noted", 0), links)) as reports:
        for report in reports:
            tune.report(report)


def trial_reports(
    context: TrialContext,
    trial: TrialId,
    params: Mapping[str, Any],
    noted: int = 0,
    links: Mapping[str, int] = MappingProxyType({}),
) -> Generator[dict[str, Any], None, None]:
    """Train one classifier and yield what the driver is told; no exception leaves this function.

    Epochs come as ``{"rows": [...]}``: one at a time as they are trained, and all together those that were trained
    before. After an interruption completed epochs come again. Training that ends by an exception gives one report more,
    see ``failure``; one that another attempt has superseded gives none.

    Args:
        context: what the study's trials share.
        trial: which trial.
        params: its searched parameters.
        noted: last epoch that the ledger knows; completed rows come again from there on, at least the last one.
        links: ``repeat_of`` of a trial that takes over the result of that one, ``replicate_of`` of one that does not.
    """
    limit_to_share(context.share.cpu, context.share.gpu)
    attempt = None
    directory = context.paths.trial(trial)
    try:
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        attempt = _begin(context, trial)
        with closing(_rows(context, trial, params, attempt, noted, links)) as rows:
            for some in rows:
                yield {"rows": some}
    except StaleAttempt:
        return
    except Exception as error:
        if attempt is None or not attempt.superseded:
            yield _failure(error, directory, attempt)
    finally:
        context.forget(trial)


def complete_trial(
    context: TrialContext, trial: TrialId, params: Mapping[str, Any], links: Mapping[str, int] = MappingProxyType({})
) -> None:
    """Train a trial that had ended from its newest whole checkpoint on, where damage took what came after.

    Args:
        context: what the study's trials share.
        trial: which trial.
        params: its searched parameters.
        links: as in ``trial_reports``.

    Raises:
        GitdistError: the trial's files cannot be read or written.
    """
    limit_to_share(context.share.cpu, context.share.gpu)
    try:
        _train_on(context, trial, params, links)
    finally:
        context.forget(trial)


def evaluate_on_test(
    context: TrialContext, trial: TrialId, params: Mapping[str, Any], test_ekld: Path
) -> dict[str, Any]:
    """Return the test metrics of a trained trial; the test data is read the first time only, then test.json is.

    Where the last epoch's checkpoint is not whole any more, the trial is trained on from the one before.

    Args:
        context: what the study's trials share.
        trial: which trial; it has been trained.
        params: its searched parameters.
        test_ekld: directory of the eKLD images of the test split.

    Returns:
        ``metrics`` (``test/...``), what ``Evaluation.per_class`` returns, ``evaluated_at`` (unix time in seconds) and
        ``evaluating_s``.

    Raises:
        GitdistError: the trial's files cannot be read or written.
    """
    try:
        if context.mirror is not None:
            context.mirror.pull(context.paths.trial(trial), checkpoints=True)
        return read_object(context.paths.test(trial)) or _evaluate_on_test(context, trial, params, test_ekld)
    finally:
        context.forget(trial)


def resolve_trial(study: StudySpec, trial: TrialId, params: Mapping[str, Any]) -> TrialSpec:
    """Return what a trial of a study trains: the baseline, or what the searched parameters make of its setting."""
    return baseline_spec(study.trial) if trial.role == "baseline" else trial_spec(study, params)


def distinct_sizes(dataset: Dataset) -> list[int]:
    """Return the number of training images of each class without repetitions of an image of the source."""
    _, first = np.unique(dataset.train.source, return_index=True)
    sizes: list[int] = np.bincount(dataset.train.labels[first], minlength=dataset.num_classes).tolist()
    return sizes


def _evaluate_on_test(
    context: TrialContext, trial: TrialId, params: Mapping[str, Any], test_ekld: Path
) -> dict[str, Any]:
    started = time.perf_counter()
    place = context.paths.test(trial)
    limit_to_share(context.share.cpu, context.share.gpu)
    spec, dataset, compute = _open(context, trial, params)
    try:
        model = load_classifier(spec, dataset, place.parent, compute)
    except StoreError:
        _train_on(context, trial, params)
        model = load_classifier(spec, dataset, place.parent, compute)
    outcome = evaluate(model, dataset.test, EkldSet.open(context.here(test_ekld)), dataset, compute)
    result = {
        "metrics": outcome.metrics("test"),
        **outcome.per_class(),
        "evaluated_at": time.time(),
        "evaluating_s": time.perf_counter() - started,
    }
    write_atomic(place, json.dumps(result, indent=2).encode())
    context.paths.publish(place)
    return result


def _train_on(
    context: TrialContext, trial: TrialId, params: Mapping[str, Any], links: Mapping[str, int] = MappingProxyType({})
) -> None:
    attempt = _begin(context, trial)
    with closing(_rows(context, trial, params, attempt, 0, links)) as rows:
        deque(rows, maxlen=0)


def _open(context: TrialContext, trial: TrialId, params: Mapping[str, Any]) -> tuple[TrialSpec, Dataset, Compute]:
    spec = resolve_trial(context.spec, trial, params)
    compute = Compute.resolve(spec.precision, context.spec.resources.trial.device)
    return spec, Dataset.open(context.here(context.dataset)), compute


def _begin(context: TrialContext, trial: TrialId) -> Attempt:
    paths = context.paths
    if context.mirror is not None:
        context.mirror.pull_file(paths.identity)  # the name of the trial's trainer begins with it
    return Attempt.begin(paths.trial(trial), context.term, context.mirror)


def _failure(error: Exception, directory: Path, attempt: Attempt | None) -> dict[str, str]:
    """Return what ``describe_failure`` says, with the object store's place of the files where there is one."""
    told = describe_failure(error, directory)
    if attempt is None or attempt.mirror is None:
        return told
    if "failed" in told:
        with suppress(StoreError, StaleAttempt):  # the reason is told, with its file or without
            attempt.publish()
    return {kind: attempt.mirror.told(reason) for kind, reason in told.items()}


def _rows(
    context: TrialContext,
    trial: TrialId,
    params: Mapping[str, Any],
    attempt: Attempt,
    noted: int,
    links: Mapping[str, int] = MappingProxyType({}),
) -> Generator[list[EpochRow], None, None]:
    """Train, yielding completed epochs' rows from ``noted`` on, then each epoch's once it is in the rows file.

    A trial that repeats another one trains what that one's files lack.
    """
    spec, dataset, compute = _open(context, trial, params)
    links = links or read_links(read_object(attempt.directory / "trial.json") or {})
    describe = partial(_describe, context, trial, spec, dataset, attempt.directory, links)
    if "repeat_of" in links:
        completed = _reused_rows(context, TrialId("trial", links["repeat_of"]), attempt)
        if len(completed) == spec.epochs:
            describe(None)
            RowsFile(attempt.directory / "rows.jsonl", completed).close()
            attempt.publish()
            yield [row for row in completed if row["epoch"] >= noted] or completed[-1:]
            return
    stream = _open_stream(context, spec, dataset) if spec.fraction > 0 else None
    try:
        setting = TrialSetting(
            compute=compute,
            stream=stream,
            ekld=EkldSet.open(context.here(context.validation_ekld)),
            directory=attempt.directory,
            check=attempt.check,
            evaluation_every=context.spec.evaluation.every,
            trained_by=trainer_name(context.paths, trial),
        )
        describe(ReusedPrefix.read(attempt.directory))
        with closing(_training(context, spec, dataset, setting, describe)) as training:
            completed = next(training)
            attempt.check()
            with RowsFile(attempt.directory / "rows.jsonl", completed) as file:
                attempt.publish()
                if completed:
                    yield [row for row in completed if row["epoch"] >= noted] or completed[-1:]
                for rows in training:
                    attempt.check()
                    for row in rows:
                        file.append(row)
                    attempt.publish()
                    yield rows
    finally:
        if stream is not None:
            stream.close()


def _reused_rows(context: TrialContext, original: TrialId, attempt: Attempt) -> list[EpochRow]:
    """Copy another trial's newest checkpoint, unless there is one as new, and return the rows of the newest one."""
    source = context.paths.trial(original)
    if context.mirror is not None:
        context.mirror.pull(source, checkpoints=True)
    copy_newest(source, attempt.directory)
    context.forget(original)
    attempt.check()
    return completed_rows(attempt.directory)


def _training(
    context: TrialContext,
    spec: TrialSpec,
    dataset: Dataset,
    setting: TrialSetting,
    describe: Callable[[ReusedPrefix], None],
) -> Generator[list[EpochRow], None, None]:
    """Yield the rows of completed epochs, then those of each epoch."""
    if not context.spec.sharing.prefix:
        yield from train_in_stages(spec, dataset, setting, None)
        return
    store = open_store(context.paths, context.spec)  # here, where its being out of reach is a report
    with store.holding(context.spec.name):
        yield from train_in_stages(
            spec, dataset, setting, store, lambda key, epochs: describe(ReusedPrefix(key, epochs))
        )


def _open_stream(context: TrialContext, spec: TrialSpec, dataset: Dataset) -> DrawStream:
    settings = context.spec.stream
    if context.router is None:
        assert context.generator is not None, "draws come from one or the other"
        source: BlockSource = LocalBlocks(context.generator.build_maker())
    else:
        source = BlockClient(context.router, autoscaling=context.spec.resources.autoscaling)
    replicate = spec.seed if settings.per_seed else 0
    return DrawStream(source, dataset.num_classes, settings.lookahead, replicate)


def _describe(
    context: TrialContext,
    trial: TrialId,
    spec: TrialSpec,
    dataset: Dataset,
    directory: Path,
    links: Mapping[str, int],
    prefix: ReusedPrefix | None,
) -> None:
    """Write trial.json: what is trained here, which prefix or result it took, and the classes of its figures."""
    described = {
        "title": f"{context.spec.name}, {f'trial {trial}' if trial.role == 'trial' else trial}",
        "role": trial.role,
        "number": trial.number,
        "spec": spec.model_dump(mode="json"),
        **links,
        "prefix": prefix.key if prefix else None,
        "prefix_epochs": prefix.epochs if prefix else None,
        "classes": {
            "names": list(dataset.class_names),
            "sizes": dataset.class_sizes.tolist(),
            "distinct": distinct_sizes(dataset),
        },
    }
    write_atomic(directory / "trial.json", json.dumps(described, indent=2).encode())
