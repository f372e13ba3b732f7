"""Retries failed trials under new numbers, from their last checkpoints."""

import shutil
from pathlib import Path

from gitdist.disk import disk_errors
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.study import BASELINE_FAILURE, Study
from gitdist.trial.checkpoint import checkpoints_of


def retry_failed_trials(ledger: Ledger) -> str:
    """Queue the failed trials again and return a line about them."""
    retried = [f"trial {failed} as trial {new}" for failed, new in ledger.retry_failed()]
    if ledger.get_attr(BASELINE_FAILURE) is not None:
        ledger.set_attr(BASELINE_FAILURE, None)
        retried.append("the baseline")
    return f"retrying: {', '.join(retried)}" if retried else "no failed trials to retry"


def copy_checkpoints(study: Study) -> None:
    """Copy the checkpoints of failed trials to the trials that retry them."""
    paths = study.paths
    for record in study.ledger.trials():
        directory = paths.trial(TrialId("trial", record.number))
        if record.retry_of is not None and record.state == "running" and not _checkpoints(paths, record.number):
            with disk_errors(directory):
                directory.mkdir(parents=True, exist_ok=True)
                for checkpoint in _checkpoints(paths, record.retry_of):
                    shutil.copy(checkpoint, directory)  # an incomplete copy is skipped when checkpoints are loaded
            paths.results.push_trial(directory)


def _checkpoints(paths: StudyPaths, number: int) -> list[Path]:
    directory = paths.trial(TrialId("trial", number))
    paths.results.pull(directory, checkpoints=True)
    return checkpoints_of(directory).files()
