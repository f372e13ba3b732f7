import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from gitdist import loss, sampler
from gitdist.balancing.losses import LOSSES
from gitdist.balancing.samplers import SAMPLERS
from gitdist.errors import GitdistError
from gitdist.spec import TrialSpec
from gitdist.trial.plan import build_loss, epoch_indices

SIZES = np.array([60, 25, 5])
TARGETS = np.random.default_rng(0).permutation(np.repeat(np.arange(3), SIZES))
LOGITS = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 0, 2])


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_gives_the_indices_of_a_trial(kind):
    own = sampler(TARGETS, kind, epochs=4, seed=7)
    spec = TrialSpec(sampler=kind, epochs=4, seed=7)

    for epoch in range(4):
        own.set_epoch(epoch)
        expected = epoch_indices(spec, TARGETS, SIZES, epoch + 1).tolist()
        assert list(own) == expected and len(own) == len(expected) == 90


def test_options_reach_the_sampler():
    labels = TARGETS.tolist()

    assert (
        list(sampler(labels, "effective-number", effective_beta=0.9))
        == epoch_indices(TrialSpec(sampler="effective-number", effective_beta=0.9), TARGETS, SIZES, 1).tolist()
        != list(sampler(labels, "effective-number"))
    )


@pytest.mark.parametrize("num_samples", [30, 90, 200])
def test_an_epoch_has_any_number_of_samples(num_samples):
    once = list(sampler(TARGETS, "instance", num_samples=num_samples))
    counts = np.bincount(once, minlength=90)

    assert len(once) == num_samples and counts.max() - counts.min() <= 1
    assert len(list(sampler(TARGETS, "class-balanced", num_samples=num_samples))) == num_samples


def test_a_loader_draws_the_classes_equally_often():
    own = sampler(torch.from_numpy(TARGETS), "class-balanced", num_samples=9000)
    labels = torch.cat([batch for (batch,) in DataLoader(TensorDataset(torch.from_numpy(TARGETS)), 100, sampler=own)])

    shares = np.bincount(labels, minlength=3) / 9000
    assert shares == pytest.approx([1 / 3] * 3, abs=4 * (2 / 9 / 9000) ** 0.5)


@pytest.mark.parametrize("weights", ["none", "inverse", "effective-number"])
@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_is_that_of_a_trial(kind, weights):
    spec = TrialSpec(loss=kind, class_weights=weights, weights_deferred=False, sampler="instance")

    own = loss(kind, SIZES, class_weights=weights)

    assert torch.equal(own(LOGITS, LABELS), build_loss(spec, SIZES, 1)(LOGITS, LABELS))
    moved = [buffer.device.type for buffer in own.to("meta").buffers()]
    assert moved == ["meta"] * ((weights != "none") + (kind not in ("cross-entropy", "focal")))


def test_the_sampler_and_options_reach_the_loss():
    spec = TrialSpec(loss="logit-adjustment", sampler="square-root", logit_tau=0.5, label_smoothing=0.1)

    own = loss("logit-adjustment", SIZES, sampler="square-root", logit_tau=0.5, label_smoothing=0.1)

    assert torch.equal(own(LOGITS, LABELS), build_loss(spec, SIZES, 1)(LOGITS, LABELS))
    assert torch.equal(
        loss("balanced-softmax", SIZES.tolist(), sampler="class-balanced")(LOGITS, LABELS),
        loss("cross-entropy", SIZES)(LOGITS + np.log(1 / 3), LABELS),
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sampler(TARGETS, "class-balance"), "did you mean 'class-balanced'"),
        (lambda: sampler(TARGETS, "instance", effective_beta=0.9), "unknown option"),
        (lambda: sampler(TARGETS, "effective-number", effective_beta=2), "effective_beta: must be less"),
        (lambda: sampler(TARGETS, "progressively-balanced"), "pass epochs"),
        (lambda: sampler(TARGETS, "instance", num_samples=0), "num_samples"),
        (lambda: sampler(TARGETS, "instance", num_samples=0.5), "num_samples"),
        (lambda: sampler([0, 10**12], "instance"), "labels must be below"),
        (lambda: sampler(TARGETS, "instance", epochs=3).set_epoch(3), "between 0 and 2"),
        (lambda: sampler(TARGETS, "instance").set_epoch(-1), "0 or more"),
        (lambda: sampler(TARGETS * 0.5, "instance"), "whole numbers"),
        (lambda: loss("focus", SIZES), "unknown loss"),
        (lambda: loss("focal", SIZES, ldam_margin=1), "unknown option 'ldam_margin'"),
        (lambda: loss("focal", SIZES, focal_gamma=-1), "focal_gamma: must be"),
        (lambda: loss("focal", SIZES, class_weights="rare"), "class_weights: must be"),
        (lambda: loss("balanced-softmax", SIZES, sampler="progressively-balanced"), "all epochs alike"),
    ],
)
def test_mistakes_are_one_line(call, words):
    with pytest.raises(GitdistError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
