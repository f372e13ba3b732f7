import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from gitdist.spec import TrialSpec
from gitdist.trial.losses import build_loss, ldam_margins

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

    loss = build_loss(spec, SIZES)(10 * COSINES, LABELS)

    assert loss.item() == pytest.approx(ldam_by_the_formula(COSINES, LABELS, [100, 16, 1], 0.5, 10), rel=1e-6)


def test_ldam_without_margin_is_scaled_cross_entropy():
    spec = TrialSpec(loss="ldam", ldam_margin=1e-12, ldam_scale=10)

    loss = build_loss(spec, SIZES)(10 * COSINES, LABELS)

    assert loss.item() == pytest.approx(functional.cross_entropy(10 * COSINES, LABELS).item(), rel=1e-6)


def test_margins_fall_with_the_fourth_root_of_the_class_size():
    assert ldam_margins(np.array([1, 16, 81]), 0.6) == pytest.approx([0.6, 0.3, 0.2])


def test_cross_entropy_is_the_mean_over_the_batch():
    loss = build_loss(TrialSpec(), SIZES)(COSINES, LABELS)

    expected = -torch.log_softmax(COSINES, 1)[torch.arange(4), LABELS].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
