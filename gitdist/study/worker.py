"""What runs on the cluster's workers: one classifier training, and the final evaluation of one.

trial directory: trial.json (what it is), rows.jsonl (one row an epoch), checkpoints, test.json, error.txt
"""

import json
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitdist.compute import Compute, set_threads
from gitdist.data.dataset import Dataset
from gitdist.errors import TrialFailure, first_line
from gitdist.spec import StudySpec, TrialSpec
from gitdist.store import write_atomic
from gitdist.stream.client import RayBlocks
from gitdist.stream.draws import DrawStream
from gitdist.study.paths import StudyPaths, TrialId
from gitdist.study.rows import RowsFile
from gitdist.study.space import baseline_spec, trial_spec
from gitdist.trial.checkpoint import completed_rows
from gitdist.trial.evaluation import EkldSet, evaluate
from gitdist.trial.training import TrialSetting, load_classifier, train


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """What all trials of a study share: the study, and where its data, eKLD sets and stream are."""

    spec: StudySpec
    results: Path
    dataset: Path
    validation_ekld: Path
    router: str

    @property
    def paths(self) -> StudyPaths:
        """The study's files."""
        return StudyPaths(self.results, self.spec.name)


def run_trial(context: TrialContext, config: Mapping[str, Any]) -> None:
    """Train one classifier, reporting a row an epoch to Tune; a failure is reported, never raised.

    Args:
        context: what the study's trials share.
        config: ``role``, ``number`` and ``params`` of this trial.
    """
    from ray import tune

    trial = TrialId(config["role"], config["number"])
    directory = context.paths.trial(trial)
    directory.mkdir(parents=True, exist_ok=True)
    set_threads(context.spec.resources.trial.cpu)
    try:
        for row in _rows(context, trial, config["params"], directory):
            tune.report({"row": row})
    except TrialFailure as failure:
        tune.report({"failed": str(failure)})
    except Exception as error:
        place = directory / "error.txt"
        place.write_text(traceback.format_exc())
        tune.report({"failed": f"{type(error).__name__}: {first_line(error)} (see {place})"})


def evaluate_on_test(
    context: TrialContext, trial: TrialId, params: Mapping[str, Any], test_ekld: Path
) -> dict[str, Any]:
    """Return the test metrics of a trained trial; the test data is read the first time only, then test.json is.

    Args:
        context: what the study's trials share.
        trial: which trial; it has been trained.
        params: its searched parameters.
        test_ekld: directory of the eKLD images of the test split.

    Returns:
        ``metrics`` (``test/...``), ``accuracy_per_class``, ``ekld_per_class`` and ``evaluating_s``.
    """
    directory = context.paths.trial(trial)
    place = directory / "test.json"
    if place.exists():
        found: dict[str, Any] = json.loads(place.read_text())
        return found
    started = time.perf_counter()
    set_threads(context.spec.resources.trial.cpu)
    spec, dataset, compute = _open(context, trial, params)
    model = load_classifier(spec, dataset, directory, compute)
    outcome = evaluate(model, dataset.test, EkldSet.open(test_ekld), dataset, compute)
    result = {
        "metrics": outcome.metrics("test"),
        "accuracy_per_class": outcome.accuracy_per_class.tolist(),
        "ekld_per_class": None if outcome.ekld_per_class is None else outcome.ekld_per_class.tolist(),
        "evaluating_s": time.perf_counter() - started,
    }
    write_atomic(place, json.dumps(result, indent=2).encode())
    return result


def resolve_trial(base: TrialSpec, trial: TrialId, params: Mapping[str, Any]) -> TrialSpec:
    """Return what a trial trains: the baseline, or the base with the searched parameters."""
    return baseline_spec(base) if trial.role == "baseline" else trial_spec(base, params)


def _open(context: TrialContext, trial: TrialId, params: Mapping[str, Any]) -> tuple[TrialSpec, Dataset, Compute]:
    spec = resolve_trial(context.spec.trial, trial, params)
    compute = Compute.resolve(spec.precision, context.spec.resources.trial.device)
    return spec, Dataset.open(context.dataset), compute


def _rows(
    context: TrialContext, trial: TrialId, params: Mapping[str, Any], directory: Path
) -> Iterator[dict[str, Any]]:
    """Train, yielding each epoch's row once it is in the rows file; after an interruption the last one comes again."""
    spec, dataset, compute = _open(context, trial, params)
    _describe(context, trial, spec, dataset, directory)
    stream = _open_stream(context, dataset) if spec.fraction > 0 else None
    try:
        completed = completed_rows(directory)
        file = RowsFile(directory / "rows.jsonl", completed)
        yield from completed[-1:]
        setting = TrialSetting(
            compute=compute,
            stream=stream,
            ekld=EkldSet.open(context.validation_ekld),
            directory=directory,
            evaluation_every=context.spec.evaluation.every,
        )
        for row in train(spec, dataset, setting):
            file.append(row)
            yield row
    finally:
        if stream is not None:
            stream.close()


def _open_stream(context: TrialContext, dataset: Dataset) -> DrawStream:
    settings = context.spec.stream
    return DrawStream(RayBlocks(context.router), dataset.num_classes, settings.block_size, settings.lookahead)


def _describe(context: TrialContext, trial: TrialId, spec: TrialSpec, dataset: Dataset, directory: Path) -> None:
    """Write trial.json: what is trained here, and the classes that its per-class figures are about."""
    described = {
        "title": f"{context.spec.name}, {f'trial {trial}' if trial.role == 'trial' else trial}",
        "role": trial.role,
        "number": trial.number,
        "spec": spec.model_dump(mode="json"),
        "classes": {"names": list(dataset.class_names), "sizes": dataset.class_sizes.tolist()},
    }
    write_atomic(directory / "trial.json", json.dumps(described, indent=2).encode())
