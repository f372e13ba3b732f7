import pytest

from gitdist.spec import TrialSpec
from gitdist.trial.epoch import learning_rate


def test_learning_rate_warms_up_and_steps_down_after_the_milestones():
    spec = TrialSpec(lr=0.1, lr_warmup_epochs=5, lr_milestones=(160, 180), lr_decay=0.01, epochs=200)

    rates = [learning_rate(spec, epoch) for epoch in (1, 4, 5, 6, 160, 161, 180, 181, 200)]

    assert rates == pytest.approx([0.02, 0.08, 0.1, 0.1, 0.1, 1e-3, 1e-3, 1e-5, 1e-5])


def test_without_warm_up_the_first_epoch_has_the_full_rate():
    assert learning_rate(TrialSpec(lr=0.1, lr_warmup_epochs=0), 1) == 0.1
