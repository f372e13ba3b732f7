"""An observer that keeps a driver's copies of its trials' files up to date, for those that are told after it."""

from collections.abc import Mapping
from typing import Any

from gitdist.study.files.events import Observer, Outcome, Row
from gitdist.study.files.layout import StudyPaths, TrialId
from gitdist.study.files.rows import read_rows


class Copies(Observer):
    """Fetches what workers have brought to the object store; in a results directory there is nothing to do."""

    def __init__(self, paths: StudyPaths) -> None:
        """Keep the files of a study."""
        self._paths = paths

    def trial_started(self, trial: TrialId, params: Mapping[str, Any]) -> None:
        """The trial has a directory from now on."""
        if self._paths.mirror is not None:
            self._paths.trial(trial).mkdir(parents=True, exist_ok=True)

    def epoch_ended(self, trial: TrialId, row: Row) -> None:
        """The worker has brought this row's file before it told of it."""
        if self._paths.mirror is not None:
            rows = read_rows(self._paths.rows(trial))
            if not rows or rows[-1]["epoch"] < row["epoch"]:  # rows that are told together come together
                self._paths.refresh(trial)

    def trial_ended(self, trial: TrialId, outcome: Outcome) -> None:
        """The reason of a failure may have a file."""
        self._paths.refresh(trial)
