"""A failed trial tried again under a new number goes on from the failed one's last checkpoint."""

import pytest

from gitdist.spec import StudySpec
from gitdist.store import Store
from gitdist.study.files.attribution import ReusedPrefix, SharedEpochs, own_rows, trainer_name
from gitdist.study.files.layout import TrialId
from gitdist.study.files.results import LocalResults
from gitdist.study.files.rows import read_rows
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.retry import copy_checkpoints
from gitdist.study.study import Study
from gitdist.study.worker.job import TrialContext
from gitdist.trial.checkpoint import checkpoints_of
from gitdist.trial.ekld import EkldRequest, ekld_set
from tests.study.worker.trial_thread import TrialThread
from tests.trial.toys import short_spec, small_digits, timeless

FAILED, AGAIN, WHOLE = (TrialId("trial", number) for number in (0, 1, 7))


@pytest.fixture
def context(tmp_path):
    digits = small_digits(tmp_path / "digits", kind="exponential", largest=60, factor=0.1)
    request = EkldRequest(split="validation", images_per_class=2, transformations=2, seed=0)
    spec = StudySpec(name="study", trial=short_spec(epochs=3, fraction=0.0, lr_milestones=(2,)))
    return TrialContext(
        spec=spec,
        lease_epoch=0,
        results=LocalResults(tmp_path),
        dataset=digits.directory,
        validation_ekld=ekld_set(digits, request, Store(tmp_path / "pairs")).directory,
        router="none",
    )


def test_the_first_epochs_are_not_trained_again(context):
    paths = context.paths
    paths.create()
    ledger = Ledger.open(paths, context.spec)
    ledger.next_trial()
    reports = TrialThread(context, FAILED)
    next(reports), next(reports)
    reports.close()
    ledger.fail(0, "its worker was lost 3 times")
    assert ledger.retry_failed() == [(0, 1)]
    copy_checkpoints(Study(paths, context.spec, ledger))
    ledger.close()
    before = read_rows(paths.rows(FAILED))
    list(TrialThread(context, AGAIN))
    after = read_rows(paths.rows(AGAIN))
    assert after[:2] == before  # times and all
    assert [row.epoch for row in own_rows(after, trainer_name(paths, AGAIN))] == [3]
    assert SharedEpochs.of(after, trainer_name(paths, AGAIN), ReusedPrefix.read(paths.trial(AGAIN))) is None
    list(TrialThread(context, WHOLE))
    assert timeless(after) == timeless(read_rows(paths.rows(WHOLE)))
    left = checkpoints_of(paths.trial(FAILED)).files()
    assert len(left) == 2  # the failed trial keeps its own
