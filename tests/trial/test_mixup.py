import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest

from gitdist.seeds import numpy_rng
from gitdist.trial.losses import build_loss
from gitdist.trial.mixup import epoch_mixup
from tests.trial.toys import short_spec

COUNT, BATCH = 20, 8  # the last batch has 4
SIZES = np.array([90, 30, 5])
RNG = torch.Generator().manual_seed(0)
INPUTS = torch.randn(COUNT, 3, 4, 4, generator=RNG).to(memory_format=torch.channels_last)
LOGITS = torch.randn(COUNT, 3, generator=RNG)
LABELS = torch.randint(0, 3, (COUNT,), generator=RNG)


def spec_of(**fields):
    return short_spec(batch_size=BATCH, mixup_alpha=0.4, **fields)


def blended(spec, loss, epoch=2):
    """Return inputs and losses of an epoch's batches after mixup."""
    blend = epoch_mixup(spec, epoch, COUNT)
    parts = [slice(start, start + BATCH) for start in range(0, COUNT, BATCH)]
    pairs = [blend(INPUTS[part], loss, part.start) for part in parts]
    losses = [loss_of(LOGITS[part], LABELS[part]) for part, (_, loss_of) in zip(parts, pairs, strict=True)]
    return torch.cat([inputs for inputs, _ in pairs]), losses


def drawn(spec, epoch=2):
    """Return lambda and the partner's place in the epoch, of each sample."""
    rng = numpy_rng(spec.seed, "trial/mixup", epoch)
    shares = rng.beta(spec.mixup_alpha, spec.mixup_alpha, 3)
    partners = [BATCH * batch + rng.permutation(size) for batch, size in enumerate((8, 8, 4))]
    return np.repeat(shares, (8, 8, 4)), np.concatenate(partners)


def test_each_sample_is_blended_with_its_partner_of_the_same_batch():
    inputs, _ = blended(spec_of(), build_loss(spec_of(), SIZES, 2))

    shares, partners = drawn(spec_of())
    for sample, (share, partner) in enumerate(zip(shares, partners, strict=True)):
        assert torch.allclose(inputs[sample], share * INPUTS[sample] + (1 - share) * INPUTS[partner], atol=1e-6)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(partners // BATCH, np.arange(COUNT) // BATCH)


@pytest.mark.parametrize("weights", ["none", "inverse"])
@pytest.mark.parametrize("name", ["cross-entropy", "ldam", "focal", "balanced-softmax", "logit-adjustment"])
def test_the_loss_is_blended_as_the_inputs_are(name, weights):
    loss = build_loss(spec_of(loss=name, class_weights=weights), SIZES, 2)

    _, losses = blended(spec_of(loss=name), loss)

    shares, partners = drawn(spec_of())
    for batch, value in enumerate(losses):
        part = slice(BATCH * batch, BATCH * (batch + 1))
        own, other = loss(LOGITS[part], LABELS[part]), loss(LOGITS[part], LABELS[partners[part]])
        share = shares[part.start]
        assert value.item() == pytest.approx((share * own + (1 - share) * other).item(), rel=1e-6)


def test_lambda_follows_its_beta_distribution():
    ones, zeros = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    spec, loss = short_spec(batch_size=2, mixup_alpha=0.4), build_loss(spec_of(), SIZES, 2)
    blend = epoch_mixup(spec, 1, 8000)
    pairs = [blend(torch.cat([ones, zeros]), loss, start)[0].flatten().tolist() for start in range(0, 8000, 2)]
    shares = [pair[0] for pair in pairs if pair[1] > 0]  # half of the batches: the partner is the other one

    assert len(shares) == pytest.approx(2000, abs=4 * 1000**0.5)
    assert all(sum(pair) == pytest.approx(1) for pair in pairs)
    assert kstest(shares, beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_without_alpha_inputs_and_loss_are_the_very_same():
    spec = short_spec(batch_size=BATCH)
    loss = build_loss(spec, SIZES, 2)

    inputs, same = epoch_mixup(spec, 1, COUNT)(INPUTS, loss, 0)

    assert inputs is INPUTS and same is loss


def test_every_epoch_has_choices_of_its_own():
    spec, loss = spec_of(), build_loss(spec_of(), SIZES, 2)
    first, again, other = (blended(spec, loss, epoch)[0] for epoch in (1, 1, 2))

    assert torch.equal(first, again) and not torch.equal(first, other)
