import time

from gitdist.study.files.events import TrainingProgress
from gitdist.study.files.layout import TrialId
from tests.epoch_rows import epoch_row

TRIAL = TrialId("trial", 0)


def test_only_an_epoch_that_was_trained_since_is_progress():
    before = time.time() - 1
    progress = TrainingProgress()
    progress.epoch_ended(TRIAL, epoch_row(2, ended_at=before))  # a resumed trial's old row comes again
    progress.epoch_ended(TRIAL, epoch_row(2))  # of a study that gitdist 0.1 began
    assert not progress.any_epoch
    progress.epoch_ended(TRIAL, epoch_row(3, ended_at=time.time() + 1))
    progress.epoch_ended(TRIAL, epoch_row(2, ended_at=before))
    assert progress.any_epoch
