import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from gitdist.balancing.losses import LOSSES, ldam_margins
from gitdist.balancing.samplers import SAMPLERS
from gitdist.spec import TrialSpec
from gitdist.trial.plan import build_loss, class_priors, class_weights, epoch_indices

SIZES = np.array([100, 16, 1])
COSINES = torch.tensor([[0.9, -0.2, 0.1], [0.3, 0.4, -0.5], [0.0, 0.8, 0.7], [-0.1, 0.2, 0.3]])
LABELS = torch.tensor([0, 1, 2, 2])


def ldam_by_the_formula(cosines, labels, sizes, largest, scale):
    """Equation 13 of Cao et al. 2019 for one sample after the other, with scaled cosines as logits."""
    smallest = min(sizes)
    total = 0.0
    for row, label in zip(cosines.tolist(), labels.tolist(), strict=True):
        margin = largest * (smallest / sizes[label]) ** 0.25
        own = math.exp(scale * (row[label] - margin))
        others = sum(math.exp(scale * value) for index, value in enumerate(row) if index != label)
        total -= math.log(own / (own + others))
    return total / len(labels)


def test_ldam_equals_its_formula():
    spec = TrialSpec(loss="ldam", ldam_margin=0.5, ldam_scale=10)

    loss = build_loss(spec, SIZES, 1)(10 * COSINES, LABELS)

    assert loss.item() == pytest.approx(ldam_by_the_formula(COSINES, LABELS, [100, 16, 1], 0.5, 10), rel=1e-6)


def test_ldam_without_margin_is_scaled_cross_entropy():
    spec = TrialSpec(loss="ldam", ldam_margin=1e-12, ldam_scale=10)

    loss = build_loss(spec, SIZES, 1)(10 * COSINES, LABELS)

    assert loss.item() == pytest.approx(functional.cross_entropy(10 * COSINES, LABELS).item(), rel=1e-6)


def test_margins_fall_with_the_fourth_root_of_the_class_size():
    assert ldam_margins(np.array([1, 16, 81]), 0.6) == pytest.approx([0.6, 0.3, 0.2])


def test_cross_entropy_is_the_mean_over_the_batch():
    loss = build_loss(TrialSpec(), SIZES, 1)(COSINES, LABELS)

    expected = -torch.log_softmax(COSINES, 1)[torch.arange(4), LABELS].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_balanced_softmax_equals_its_formula():
    loss = build_loss(TrialSpec(loss="balanced-softmax", sampler="instance"), SIZES, 1)(COSINES, LABELS)

    total = 0.0
    for row, label in zip(COSINES.tolist(), LABELS.tolist(), strict=True):
        scores = [size * math.exp(logit) for size, logit in zip(SIZES.tolist(), row, strict=True)]
        total -= math.log(scores[label] / sum(scores))
    assert loss.item() == pytest.approx(total / 4, rel=1e-6)


@pytest.mark.parametrize("tau", [0.0, 0.7, 2.0])
def test_logit_adjustment_equals_its_formula(tau):
    loss = build_loss(TrialSpec(loss="logit-adjustment", logit_tau=tau, sampler="instance"), SIZES, 1)(COSINES, LABELS)

    adjusted = COSINES.double() + tau * torch.tensor([math.log(size / 117) for size in SIZES])
    assert loss.item() == pytest.approx(functional.cross_entropy(adjusted, LABELS).item(), rel=1e-6)


@pytest.mark.parametrize("sampler", ["instance", "square-root"])
def test_balanced_softmax_is_logit_adjustment_at_tau_1(sampler):
    balanced, adjusted = (
        build_loss(TrialSpec(loss=name, sampler=sampler, class_weights="inverse"), SIZES, 1)(COSINES, LABELS)
        for name in ("balanced-softmax", "logit-adjustment")
    )

    assert torch.equal(balanced, adjusted)


def best_answer(loss, labels):
    """Return the P(y|x), the same for every image, that minimises the loss over all labels."""
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = loss(logits.expand(len(labels), 3).float(), labels)
        value.backward()
        return value

    optimiser.step(closure)
    return torch.softmax(logits.detach(), 0).tolist()


@pytest.mark.parametrize("name", ["balanced-softmax", "logit-adjustment"])
@pytest.mark.parametrize("weights", ["none", "inverse", "effective-number"])
@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_where_images_say_nothing_the_best_answer_is_uniform_under_every_sampler_and_weights(sampler, weights, name):
    sizes = np.array([1000, 100, 10])
    labels = np.repeat(np.arange(3), sizes)
    fields = {"loss": name, "sampler": sampler, "class_weights": weights, "effective_beta": 0.99}
    for epoch in (2, 3):
        specs = [TrialSpec(**fields, epochs=4, switch_epoch=1, seed=seed) for seed in range(20)]
        sampled = np.concatenate([labels[epoch_indices(spec, labels, sizes, epoch)] for spec in specs])
        answer = best_answer(build_loss(specs[0], sizes, epoch), torch.from_numpy(sampled))
        assert answer == pytest.approx([1 / 3] * 3, abs=0.03)


@pytest.mark.parametrize("loss", list(LOSSES))
def test_every_loss_is_weighted_as_torchs_cross_entropy_is(loss):
    sizes, logits = np.array([400, 0, 90, 10]), torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 2, 3] * 10)
    spec = TrialSpec(loss=loss, class_weights="inverse")
    loss_of, weights = build_loss(spec, sizes, 1), class_weights(spec, sizes, 1)
    values = [loss_of(logits[i : i + 1], labels[i : i + 1]).item() for i in range(30)]

    weighted = loss_of(logits, labels)

    assert weighted.item() == pytest.approx(np.average(values, weights=weights[labels.numpy()]), rel=1e-5)
    if loss == "cross-entropy":
        assert torch.equal(weighted, functional.cross_entropy(logits, labels, weight=torch.tensor(weights).float()))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 3.0])
def test_focal_equals_its_formula(gamma):
    loss = build_loss(TrialSpec(loss="focal", focal_gamma=gamma), SIZES, 1)(COSINES, LABELS)

    right = torch.softmax(COSINES.double(), 1)[torch.arange(4), LABELS]
    expected = -((1 - right) ** gamma * right.log()).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_focal_at_gamma_0_is_cross_entropy():
    loss = build_loss(TrialSpec(loss="focal", focal_gamma=0), SIZES, 1)(COSINES, LABELS)

    assert loss.item() == pytest.approx(functional.cross_entropy(COSINES, LABELS).item(), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
def test_focal_of_a_certain_answer_is_0_with_a_gradient_of_0(gamma):
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)

    loss = build_loss(TrialSpec(loss="focal", focal_gamma=gamma), SIZES, 1)(logits, torch.tensor([0]))
    loss.backward()

    assert loss.item() == 0 and not logits.grad.any()


SOFTMAX = {  # what each of these losses makes of the logits
    "cross-entropy": {},
    "ldam": {"ldam_margin": 0.3, "ldam_scale": 10},
    "balanced-softmax": {"sampler": "instance"},
    "logit-adjustment": {"sampler": "instance", "logit_tau": 0.7},
}


@pytest.mark.parametrize("weights", ["none", "inverse"])
@pytest.mark.parametrize("name", SOFTMAX)
def test_smoothed_labels_are_those_of_torchs_cross_entropy_of_the_changed_logits(name, weights):
    spec = TrialSpec(loss=name, label_smoothing=0.2, class_weights=weights, **SOFTMAX[name])
    priors = torch.from_numpy(class_priors(spec, SIZES, 1).astype(np.float32))
    margins = torch.tensor([10 * 0.3 * (1 / size) ** 0.25 for size in SIZES.tolist()])
    changed = {
        "cross-entropy": COSINES,
        "ldam": COSINES - margins * functional.one_hot(LABELS, 3),
        "balanced-softmax": COSINES + priors.log(),
        "logit-adjustment": COSINES + 0.7 * priors.log(),
    }[name]
    weight = None if weights == "none" else torch.from_numpy(class_weights(spec, SIZES, 1)).float()

    loss = build_loss(spec, SIZES, 1)(COSINES, LABELS)

    assert loss.item() == pytest.approx(
        functional.cross_entropy(changed, LABELS, weight, label_smoothing=0.2).item(), rel=1e-6
    )


def test_every_loss_smooths_labels_or_refuses_to():
    for name in LOSSES.keys() - SOFTMAX.keys():
        with pytest.raises(
            ValidationError, match=f"label_smoothing is not defined for the loss {name}, .* set it to 0"
        ):
            TrialSpec(loss=name, label_smoothing=0.1)


@pytest.mark.parametrize("name", ["balanced-softmax", "logit-adjustment", "ldam"])
def test_a_class_without_images_counts_as_one_of_one_image(name):
    spec, labels = TrialSpec(loss=name, sampler="instance"), torch.tensor([0, 1, 0, 1])
    without, with_one = (build_loss(spec, np.array([100, 16, size]), 1)(COSINES, labels) for size in (0, 1))

    assert torch.equal(without, with_one) and without.isfinite()
