"""Trials with one training key train the same, bit for bit; those that train otherwise have another key."""

import pytest

from gitdist.spec import TrialSpec
from gitdist.trial.canonical import training_key
from tests.trial.test_stages import EARLY
from tests.trial.toys import assert_same_state, short_spec, small_digits, stream_of, whole

HARD = {"threshold_kind": "hard", "epochs": 2, "lr_milestones": ()}
NONE = {**HARD, "fraction": 0.0}
IDLE = {"effective_beta": 0.5, "lr_decay": 0.3, "ldam_margin": 0.1, "focal_gamma": 3.0, "randaugment_magnitude": 2}
SAME = {
    "no class size between two K": ({**HARD, "threshold": 21}, {**HARD, "threshold": 21.5}),
    "K at the smallest class, and p = 0": ({**HARD, "threshold": 20}, NONE),
    "K above all classes, and none": ({**HARD, "threshold": 61}, {**HARD, "threshold": None}),
    "a soft threshold without K": ({**HARD, "threshold": None}, {**HARD, "threshold": None, "threshold_kind": "soft"}),
    "p below one sample of a batch": ({**HARD, "threshold": None, "fraction": 0.03}, NONE),
    "p of as many samples": ({**HARD, "fraction": 0.5}, {**HARD, "fraction": 0.51}),
    "no epoch after the switch": (
        {**HARD, "switch_epoch": 2},
        {**HARD, "switch_epoch": 2, "sampler": "square-root", "threshold": None, "fraction": 0.9},
    ),
    "what nothing reads": ({**NONE, "sampler": "instance"}, {**NONE, "sampler": "instance", **IDLE}),
    "a milestone at the last epoch": ({**HARD, "lr_milestones": (2,)}, {**HARD, "lr_decay": 0.5}),
    "a warm-up of one epoch": ({**HARD, "lr_warmup_epochs": 1}, {**HARD, "lr_warmup_epochs": 0}),
    "weights from the first epoch": (
        {**HARD, "switch_epoch": 0, "class_weights": "inverse", "weights_deferred": True},
        {**HARD, "switch_epoch": 0, "class_weights": "inverse", "weights_deferred": False},
    ),
}
OTHER = {**EARLY, "switch_epoch": 0, "epochs": 3, "class_weights": "inverse", "sampler": "square-root"}
OTHER |= {"threshold": 40, "threshold_kind": "soft", "fraction": 0.75}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Classes of 60 down to 20 images."""
    return small_digits(tmp_path_factory.mktemp("digits"), kind="exponential", largest=60, factor=1 / 3)


@pytest.mark.parametrize("case", SAME)
def test_trials_of_one_key_train_the_same(digits, tmp_path, case):
    first, second = (short_spec(**{"threshold": 30, **fields}) for fields in SAME[case])
    assert first != second
    assert training_key(first, digits.class_sizes) == training_key(second, digits.class_sizes)
    rows, state = whole(first, digits, tmp_path / "first")
    others, other_state = whole(second, digits, tmp_path / "second", stream=stream_of(digits))
    assert others == rows
    assert_same_state(other_state, state)


@pytest.mark.parametrize("field", OTHER)
def test_a_field_that_is_read_is_part_of_the_key(digits, field):
    base = short_spec(**HARD, threshold=30)
    changed = TrialSpec.model_validate({**base.model_dump(), field: OTHER[field]})
    assert training_key(base, digits.class_sizes) != training_key(changed, digits.class_sizes)


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        ({"sampler": "effective-number"}, {"effective_beta": 0.5}),
        ({"sampler": "instance", "class_weights": "effective-number"}, {"effective_beta": 0.5}),
        ({"class_weights": "inverse"}, {"weights_deferred": False}),
        ({"loss": "ldam"}, {"ldam_margin": 0.1}),
        ({"loss": "ldam"}, {"ldam_scale": 10.0}),
        ({"loss": "focal"}, {"focal_gamma": 3.0}),
        ({"loss": "logit-adjustment"}, {"logit_tau": 2.0}),
        ({"randaugment_ops": 1}, {"randaugment_magnitude": 2}),
        ({"network": "timm:test_resnet"}, {"network_options": {"drop_rate": 0.1}}),
        ({"lr_milestones": (1,)}, {"lr_decay": 0.5}),
        ({"lr_milestones": (1,)}, {"lr_milestones": ()}),
        ({"threshold_kind": "soft", "threshold": 30.0}, {"threshold": 30.5}),
        ({"threshold": 20}, {"threshold": 20.5}),
    ],
)
def test_a_field_that_is_read_beside_another_is_part_of_the_key(digits, fields, change):
    base = short_spec(**{**HARD, "threshold": 30, **fields})
    changed = TrialSpec.model_validate({**base.model_dump(), **change})
    assert training_key(base, digits.class_sizes) != training_key(changed, digits.class_sizes)


def test_every_field_is_tested_above():
    conditional = {"effective_beta", "weights_deferred", "ldam_margin", "ldam_scale", "focal_gamma", "logit_tau"}
    conditional |= {"randaugment_magnitude", "lr_decay", "lr_milestones", "network_options"}
    assert set(OTHER) | conditional == set(TrialSpec.model_fields)
