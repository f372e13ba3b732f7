"""A small study that has ended, and one that has not, with all of their files, made without training."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gitdist.data.dataset import Dataset, prepare
from gitdist.spec import StudySpec
from gitdist.spec.file import parse_study
from gitdist.spec.study import TrackingSpec
from gitdist.store import Store
from gitdist.study.compatibility import load_stored_spec
from gitdist.study.files.fencing import Attempt
from gitdist.study.files.json_lines import JsonLinesFile
from gitdist.study.files.layout import BASELINE, StudyPaths, TrialId, open_store
from gitdist.study.files.rows import open_rows
from gitdist.study.files.times import STUDY, Times
from gitdist.study.ledger.lease import Lease
from gitdist.study.prepare import check_and_repair
from gitdist.study.study import GENERATOR, Study
from gitdist.study.study_record import sync_mlflow
from gitdist.study.summary import write_summary
from gitdist.study.worker.job import TrialJob
from gitdist.study.worker.trial_task import write_description
from gitdist.trial.checkpoint import Checkpoint, fresh_classifier, load_checkpoint, save_checkpoint
from gitdist.trial.epoch_row import EpochRow
from tests.epoch_rows import epoch_row

NAME = "ended"
EPOCHS = 2
ARTIFACTS = ("generator", "ekld", "prefix")
SPEC: dict[str, Any] = {
    "name": NAME,
    "data": {
        "source": "digits",
        "nuisance": "background",
        "profile": {"kind": "exponential", "largest": 20, "factor": 0.2},
        "validation_per_class": 2,
    },
    "generator": {"kind": "oracle"},
    "trial": {"epochs": EPOCHS, "lr_warmup_epochs": 0},
    "tracking": {"models": False},  # the checkpoints have no weights
    "search": {"total": 3, "algorithm": "random", "space": {"fraction": {"float": [0.2, 0.8]}}},
}


def make_study(results: Path, *, ended: bool = True, ledger: str = "sqlite", search: Any = None) -> StudyPaths:
    """Make a study of a baseline and three trials; if it has not ended, the last trial lacks an epoch."""
    spec = parse_study({**SPEC, "ledger": ledger, "search": {**SPEC["search"], **(search or {})}}, "the test")
    paths = StudyPaths.at(results, NAME)
    paths.create()
    store = open_store(paths, spec)
    dataset = prepare(spec.data, store)
    _make_artifacts(store)
    with (
        Study.create(paths, spec) as study,
        Lease.claim(study.ledger.storage, NAME) as lease,
        Times.open(paths) as times,
    ):
        check_and_repair(study, dataset, {}, retry_failed=False, log=print)
        study.ledger.set_attr(GENERATOR, "oracle")
        times.started(STUDY)
        _train(study, TrialJob.create(spec, BASELINE, {}), dataset, EPOCHS, lease.epoch)
        num_trials = spec.search.total * spec.search.replicates
        for number in range(num_trials):
            record = study.ledger.next_trial()
            assert record is not None
            job = TrialJob.create(spec, TrialId("trial", number), record.params)
            is_last = not ended and number == num_trials - 1
            rows = _train(study, job, dataset, EPOCHS - 1 if is_last else EPOCHS, lease.epoch)
            if not is_last:
                study.ledger.finish(number, {"val/ekld": 1.0, **rows[-1].metrics})
        with JsonLinesFile(paths.monitor_log) as monitor_log:
            for step in (1, 2):
                monitor_log.append({"step": step, "at": 1.7e9 + step, "system/cpu_utilization_percentage": 3.0})
        paths.usage.mkdir()
        usage = {"wall_s": 3.0, "generated_images": 9, "generating_s": 1.0, "generator_training_s": 0.0}
        (paths.usage / "0000.json").write_text(json.dumps(usage))
        Image.new("RGB", (8, 8)).save(paths.samples)
        times.ended(STUDY)
        if ended:
            write_summary(study)
    with Study.open(paths, spec) as study:
        sync_mlflow(study, print)
    return paths


def give_weights(paths: StudyPaths) -> StudySpec:
    """Put untrained weights into the last checkpoints of a study, each trial its own; return the spec with models."""
    spec = load_stored_spec(paths)
    dataset = prepare(spec.data, open_store(paths, spec))
    for index, trial in enumerate((BASELINE, *paths.stored_trials())):
        checkpoint = load_checkpoint(paths.trial(trial))
        assert checkpoint is not None
        for file in paths.trial(trial).glob("*.pt"):
            file.unlink()
        model = fresh_classifier(spec.trial.model_copy(update={"seed": index}), dataset)
        save_checkpoint(paths.trial(trial), replace(checkpoint, model=model.state_dict()))
    return spec.model_copy(update={"tracking": TrackingSpec()})


def _train(study: Study, job: TrialJob, dataset: Dataset, epochs: int, lease_epoch: int) -> list[EpochRow]:
    """Write what a trial of so many epochs leaves."""
    paths, directory = study.paths, study.paths.trial(job.trial)
    Attempt.begin(directory, lease_epoch, paths.results)
    quality = 0.5 + 0.1 * (job.trial.number or 0)
    per_class = {"accuracy_per_class": [quality] * dataset.num_classes}
    rows = [
        epoch_row(epoch, metrics={"val/balanced_accuracy": quality}, per_class=per_class, ended_at=1.7e9 + epoch)
        for epoch in range(1, epochs + 1)
    ]
    open_rows(paths.rows(job.trial), rows).close()
    write_description(paths, job, dataset)
    for epoch in range(1, epochs + 1):
        cursors = torch.zeros(dataset.num_classes, dtype=torch.int64)
        checkpoint = Checkpoint(epoch=epoch, model={}, optimizer={}, cursors=cursors, rows=rows[:epoch])
        save_checkpoint(directory, checkpoint)
    result = {"metrics": {"test/balanced_accuracy": quality}, **per_class, "evaluated_at": 1.7e9, "evaluating_s": 0.5}
    if epochs == EPOCHS:
        paths.test(job.trial).write_text(json.dumps(result))
    return rows


def _make_artifacts(store: Store) -> None:
    """Fill the store beside the data set: what they contain is not read, only whether it is whole."""
    for kind in ARTIFACTS:
        store.get_or_build(kind, {"kind": kind}, lambda target, scratch: _write(target / "content.bin"))
    blocks = store.root / "blocks" / ("0" * 20)
    blocks.mkdir(parents=True)
    _write(blocks / "0-0-0.block")


def _write(file: Path) -> None:
    file.write_bytes(bytes(5000))
