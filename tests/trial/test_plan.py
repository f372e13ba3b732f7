"""What an epoch will do is known beforehand, and is what it does."""

import numpy as np
import pytest

from gitdist.seeds import numpy_rng
from gitdist.trial.plan import draws_needed, epoch_rows, replaced_rows
from gitdist.trial.sampling import epoch_indices
from gitdist.trial.training import train
from tests.trial.toys import setting_of, short_spec, stream_of


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"threshold_kind": "hard"},
        {"threshold": None, "threshold_kind": "hard", "fraction": 0.9, "batch_size": 37},
        {"sampler": "instance", "switch_epoch": 0},
        {"sampler": "progressively-balanced", "threshold_kind": "hard"},
        {"switch_epoch": 4},
        {"fraction": 0.0},
    ],
)
def test_the_draws_needed_are_the_draws_taken(digits, fields):
    spec, stream = short_spec(**fields), stream_of(digits)
    labels, sizes = digits.train.labels, digits.class_sizes
    draws = [row["draws"] for row in train(spec, digits, setting_of(digits, stream=stream))]
    needed = draws_needed(spec, labels, sizes)
    assert needed.tolist() == stream.cursors.tolist() and needed.sum() == sum(draws)
    assert draws_needed(spec, labels, sizes, first_epoch=3).sum() == sum(draws[2:])


def test_before_the_switch_every_row_is_visited_once_and_none_replaced(digits):
    spec, labels, sizes = short_spec(), digits.train.labels, digits.class_sizes
    rows = epoch_rows(spec, labels, sizes, 1)
    assert np.sort(rows).tolist() == list(range(len(labels)))
    assert not replaced_rows(spec, labels[rows], sizes, 1).any()
    assert replaced_rows(spec, labels[rows], sizes, 2).any()


def test_progressive_balancing_ends_class_balanced_and_is_on_its_way_before(digits):
    labels, sizes = digits.train.labels, digits.class_sizes
    progressive, balanced = (
        short_spec(sampler=name, epochs=4, switch_epoch=2) for name in ("progressively-balanced", "class-balanced")
    )
    same = [
        np.array_equal(epoch_rows(progressive, labels, sizes, epoch), epoch_rows(balanced, labels, sizes, epoch))
        for epoch in (1, 2, 3, 4)
    ]
    halfway = epoch_indices(
        progressive.sampler, labels, sizes, progressive.effective_beta, numpy_rng(0, "trial/sample", 3), 0.5
    )
    assert same == [True, True, False, True]
    assert np.array_equal(epoch_rows(progressive, labels, sizes, 3), halfway)
