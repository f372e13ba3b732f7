from gitdist.study.files.events import Outcome, Row
from gitdist.study.files.layout import TrialId


class Recorder:
    """A driver's records that are not kept."""

    def record_start(self, trial: TrialId) -> None: ...

    def record_epoch(self, trial: TrialId, row: Row) -> None: ...

    def record_end(self, trial: TrialId, outcome: Outcome) -> None: ...
