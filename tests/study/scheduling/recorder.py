from gitdist.study.files.events import Outcome
from gitdist.study.files.layout import TrialId
from gitdist.trial.epoch_row import EpochRow


class Recorder:
    """A driver's records that are not kept."""

    def record_start(self, trial: TrialId) -> None: ...

    def record_epoch(self, trial: TrialId, row: EpochRow) -> None: ...

    def record_end(self, trial: TrialId, outcome: Outcome) -> None: ...
