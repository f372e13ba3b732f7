"""The trained models of a study: which trials can have one, and the MLflow models of the chosen ones.

checkpoint of a trial --> TrainedModel --> a file of ``gitdist export``, predictions
                                      `--> models/0007/, an MLflow model --Tracker, sync--> MLflow
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from gitdist.data.dataset import Dataset, prepare
from gitdist.errors import DataError, DiskError, SpecError, StoreError, StudyError
from gitdist.export.model import TrainedModel
from gitdist.study.compatibility import check_or_record_data
from gitdist.study.files.layout import BASELINE, TrialId, open_store
from gitdist.study.ledger.ledger import TrialRecord
from gitdist.study.monitoring.mlflow.models import save_model
from gitdist.study.study import Study
from gitdist.study.worker.job import TrialJob


def choose_record(study: Study, number: int | None) -> TrialRecord:
    """Return the record of a finished trial; without a number that of the best point.

    Raises:
        StudyError: it has not finished, has lost rows or does not exist, or no single trial is the best.
    """
    name, records = study.spec.name, study.ledger.trials()
    if number is None:
        best = study.best_trials()
        if study.lacks_feasible_trial():
            constraints = ", ".join(map(str, study.spec.search.constraints))
            raise StudyError(
                f"no trial of study '{name}' meets the constraints {constraints}, so none is the best; choose a trial",
                remedy="choose_trial",
            )
        if not best:
            raise StudyError(f"a finished trial is needed, but study '{name}' has none yet; resume the study")
        if len(study.spec.search.objectives) > 1:
            front = ", ".join(str(record.number) for record in best)
            raise StudyError(
                f"study '{name}' has {len(study.spec.search.objectives)} objectives, so no trial is the best one; "
                f"choose one of the Pareto front ({front})",
                remedy="choose_trial",
            )
        return best[0]
    record = next((record for record in records if record.number == number), None)
    if record is None:
        raise StudyError(f"study '{name}' has no trial {number}; it has {len(records)}, counted from 0")
    lost = study.num_lost_epochs(record)
    if record.state != "finished" or lost:
        state = f"has lost {lost} of its rows" if lost else f"is {record.state}"
        raise StudyError(f"a finished trial is needed, but trial {number} of study '{name}' {state}")
    return record


def choose_trial(study: Study, number: int | None) -> TrialJob:
    """Return the training of a finished trial; see ``choose_record``."""
    return _job(study, choose_record(study, number))


def choose_baseline(study: Study) -> TrialJob:
    """Return the baseline; raise StudyError if the study has none that was trained to its end."""
    if not study.is_baseline_trained():
        state = "is not trained to its end" if study.spec.baseline else "does not exist (baseline: false)"
        raise StudyError(f"a model needs a finished training, but the baseline of study '{study.spec.name}' {state}")
    return TrialJob.create(study.spec, BASELINE, {})


def choose_model(study: Study, trial: int | Literal["baseline"] | None) -> TrialJob:
    """Return a finished trial or the baseline; for None, and for what is raised, see ``choose_trial``."""
    return choose_baseline(study) if trial == "baseline" else choose_trial(study, trial)


def load_model(study: Study, job: TrialJob, dataset: Dataset) -> TrainedModel:
    """Return the model of a finished trial; raise StoreError if its last checkpoint is not there."""
    directory = study.paths.trial(job.trial)
    study.paths.results.pull(directory, checkpoints=True)
    return TrainedModel.load(job.spec, dataset, directory, study=study.spec.name, trial=str(job.trial))


def find_dataset(study: Study) -> Dataset | None:
    """Return the study's data set if the store still has it; its source is not read."""
    fingerprint, store = study.ledger.get_attr("data"), study.paths.results.store
    for directory in sorted((store / "dataset").glob("[!.]*")):
        with suppress(DataError):  # it is of another version, or damaged
            dataset = Dataset.open(directory)
            if dataset.fingerprint == fingerprint:
                return dataset
    return None


def open_dataset(study: Study) -> Dataset:
    """Return the study's data set; prepare it again if the store has lost it.

    Raises:
        DataError: its source cannot be read.
        StudyError: its source has changed.
    """
    dataset = find_dataset(study)
    if dataset is None:
        dataset = prepare(study.spec.data, open_store(study.paths, study.spec))
        check_or_record_data(study.paths, study.ledger, dataset.fingerprint)
    return dataset


def save_models(study: Study, dataset: Dataset, log: Callable[[str], None]) -> list[TrialId]:
    """Save the MLflow models of the best trials and of the baseline, those that are missing; return their trials.

    A trial without its last checkpoint, or whose network cannot be exported, is logged and left out.

    Raises:
        DiskError: the disk does not take a model.
    """
    if not study.spec.tracking.models:
        return []
    saved = []
    chosen = [_job(study, record) for record in study.best_trials()]
    if study.is_baseline_trained():
        chosen.append(choose_baseline(study))
    for job in chosen:
        directory = study.paths.model(job.trial)
        if directory.exists():
            continue
        try:
            save_model(load_model(study, job, dataset), directory)
        except DiskError:
            raise
        except (SpecError, StoreError) as error:
            log(f"MLflow gets no model of {_title(job.trial)}: {error}")
        else:
            saved.append(job.trial)
    return saved


def _job(study: Study, record: TrialRecord) -> TrialJob:
    return TrialJob.create(study.spec, TrialId("trial", record.number), record.params)


def _title(trial: TrialId) -> str:
    return "the baseline" if trial.number is None else f"trial {trial}"
