from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from gitdist.spec import TrialSpec
from gitdist.spec.trial import Sampler
from gitdist.trial.losses import build_loss
from gitdist.trial.weights import class_priors, class_weights
from tests.trial.toys import short_spec, whole

SIZES, FULL = np.array([400, 0, 90, 10]), np.array([400, 90, 10])
LOGITS = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 2, 3] * 10)


def weights_of(kind, beta=0.99):
    return class_weights(TrialSpec(class_weights=kind, effective_beta=beta), SIZES, 1)


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        ("inverse", [1 / 400, 0, 1 / 90, 1 / 10]),
        ("effective-number", [(1 - 0.99) / (1 - 0.99**n) if n else 0 for n in (400, 0, 90, 10)]),
    ],
)
def test_weights_follow_their_formula_and_add_up_to_the_number_of_classes(kind, raw):
    weights = weights_of(kind)

    assert weights == pytest.approx(4 * np.array(raw) / sum(raw), rel=1e-12)
    assert weights.sum() == pytest.approx(4)


def test_effective_numbers_lie_between_no_weights_and_inverse_ones():
    assert weights_of("effective-number", 1e-12) == pytest.approx([4 / 3, 0, 4 / 3, 4 / 3])
    assert weights_of("effective-number", 1 - 1e-9) == pytest.approx(weights_of("inverse"), rel=1e-6)


@pytest.mark.parametrize(("deferred", "first"), [(True, 4), (False, 1)])
def test_deferred_weights_begin_after_the_switch(deferred, first):
    spec = TrialSpec(class_weights="inverse", weights_deferred=deferred, switch_epoch=3, epochs=5)

    assert [epoch for epoch in range(1, 6) if class_weights(spec, SIZES, epoch) is not None] == list(range(first, 6))


@pytest.mark.parametrize("loss", ["cross-entropy", "ldam", "focal", "balanced-softmax", "logit-adjustment"])
def test_every_loss_is_weighted_as_torchs_cross_entropy_is(loss):
    spec = TrialSpec(loss=loss, class_weights="inverse")
    loss_of, weights = build_loss(spec, SIZES, 1), class_weights(spec, SIZES, 1)
    values = [loss_of(LOGITS[i : i + 1], LABELS[i : i + 1]).item() for i in range(30)]

    weighted = loss_of(LOGITS, LABELS)

    assert weighted.item() == pytest.approx(np.average(values, weights=weights[LABELS.numpy()]), rel=1e-5)
    if loss == "cross-entropy":
        assert torch.equal(weighted, functional.cross_entropy(LOGITS, LABELS, weight=torch.tensor(weights).float()))


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_before_the_switch_the_priors_are_the_classes_shares_of_the_images_to_the_bit(sampler):
    spec = TrialSpec(sampler=sampler, class_weights="inverse", switch_epoch=2)

    for epoch in (1, 2):
        assert np.array_equal(class_priors(spec, FULL, epoch), FULL / FULL.sum())


@pytest.mark.parametrize(
    ("fields", "epoch", "shares"),
    [
        ({"sampler": "instance"}, 4, [400, 90, 10]),
        ({"sampler": "class-balanced"}, 3, [1, 1, 1]),
        ({"sampler": "instance", "class_weights": "inverse"}, 3, [1, 1, 1]),
        ({"sampler": "class-balanced", "class_weights": "inverse"}, 3, [1 / 400, 1 / 90, 1 / 10]),
        ({"class_weights": "inverse", "weights_deferred": False}, 2, [1, 1, 1]),
        ({"sampler": "progressively-balanced"}, 3, [0.5 * n / 500 + 0.5 / 3 for n in (400, 90, 10)]),
        (
            {"sampler": "square-root", "class_weights": "effective-number", "effective_beta": 0.99},
            4,
            [n**0.5 / (1 - 0.99**n) for n in (400, 90, 10)],
        ),
    ],
)
def test_priors_are_proportional_to_what_is_drawn_times_its_weight(fields, epoch, shares):
    priors = class_priors(TrialSpec(epochs=4, switch_epoch=2, **fields), FULL, epoch)

    assert priors == pytest.approx(np.array(shares) / sum(shares), rel=1e-12)


def test_weights_change_training_once_they_have_begun(digits, tmp_path):
    fields = {"epochs": 2, "switch_epoch": 1, "fraction": 0.0, "sampler": "instance"}
    variants = [{}, {"class_weights": "inverse"}, {"class_weights": "inverse", "weights_deferred": False}]
    none, deferred, early = (
        whole(short_spec(**fields, **variant), digits, tmp_path / str(number), stream=None)[0]
        for number, variant in enumerate(variants)
    )

    assert deferred[0] == none[0] and deferred[1] != none[1]
    assert early[0] != none[0]


def test_deferred_weights_that_would_never_begin_are_refused():
    with pytest.raises(ValidationError, match="switch_epoch = 50 is the last epoch; lower it"):
        TrialSpec(class_weights="inverse", switch_epoch=50, epochs=50)
    TrialSpec(class_weights="inverse", switch_epoch=50, epochs=50, weights_deferred=False)
