import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from gitdist.data.longtail import size_groups
from gitdist.spec import GroupsSpec
from gitdist.trial.metrics import (
    balanced_mean,
    class_accuracies,
    consistency,
    expected_kl,
    group_accuracies,
    kl_divergences,
    log_probabilities,
    per_class_mean,
)


def expected_kl_by_the_formula(logits, transformed):
    """E_x' KL(P(.|x) || P(.|x')) of each image, one sum after the other."""
    values = []
    for row, draws in zip(logits.tolist(), transformed.tolist(), strict=True):
        p = softmax(row)
        divergences = [sum(a * math.log(a / b) for a, b in zip(p, softmax(q), strict=True)) for q in draws]
        values.append(sum(divergences) / len(divergences))
    return values


def consistency_by_counting(logits, transformed):
    """The share of transformations whose largest logit is the image's largest, one after the other."""
    return [
        sum(int(draw.argmax()) == int(row.argmax()) for draw in draws) / len(draws)
        for row, draws in zip(logits, transformed, strict=True)
    ]


def softmax(row):
    largest = max(row)
    exponentials = [math.exp(value - largest) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def test_expected_kl_equals_its_formula():
    rng = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(6, 10, generator=rng)
    transformed = logits[:, None] + torch.randn(6, 4, 10, generator=rng)

    values = expected_kl(log_probabilities(logits), log_probabilities(transformed.view(24, 10)).view(6, 4, 10))

    assert values.tolist() == pytest.approx(expected_kl_by_the_formula(logits, transformed), rel=1e-6)
    assert values.dtype == torch.float64


def test_consistency_is_the_share_of_transformations_with_the_same_answer():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 10, generator=rng)
    transformed = logits[:, None] + torch.randn(6, 8, 10, generator=rng)

    shares = consistency(log_probabilities(logits), log_probabilities(transformed.view(48, 10)).view(6, 8, 10))

    assert shares.tolist() == consistency_by_counting(logits, transformed) and 0 < shares.mean() < 1


def test_kl_is_exactly_zero_between_equal_distributions():
    log_p = log_probabilities(torch.randn(50, 10, generator=torch.Generator().manual_seed(1)))

    assert not kl_divergences(log_p, log_p.clone()).any()


def test_kl_is_never_negative_where_distributions_nearly_agree():
    logits = torch.randn(2000, 10, generator=torch.Generator().manual_seed(2))
    nudged = logits * (1 + 1e-7)

    assert (kl_divergences(log_probabilities(logits), log_probabilities(nudged)) >= 0).all()


def test_a_probability_of_zero_contributes_nothing():
    impossible = torch.tensor([[0.0, -math.inf]], dtype=torch.float64)
    even = torch.full((1, 2), math.log(0.5), dtype=torch.float64)

    assert kl_divergences(impossible, even).tolist() == pytest.approx([math.log(2)])
    assert kl_divergences(impossible, impossible).tolist() == [0.0]


def test_balanced_accuracy_equals_scikit_learns():
    rng = np.random.default_rng(3)
    labels = rng.choice(7, 500, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05, 0.0])
    predictions = np.where(rng.random(500) < 0.6, labels, rng.integers(0, 7, 500))

    ours = balanced_mean(class_accuracies(predictions, labels, 7))

    with warnings.catch_warnings():
        # It warns that class 6 is predicted and never true.
        warnings.simplefilter("ignore", UserWarning)
        assert ours == pytest.approx(balanced_accuracy_score(labels, predictions), rel=1e-12)


def test_per_class_mean_is_nan_for_a_class_without_rows():
    means = per_class_mean(np.array([1.0, 3.0, 5.0]), np.array([0, 0, 2]), 3)

    assert means[[0, 2]].tolist() == [2.0, 5.0] and np.isnan(means[1])


def test_group_accuracies_are_means_over_classes():
    groups = size_groups([500, 300, 50, 5], GroupsSpec())

    accuracies = group_accuracies(np.array([1.0, 0.5, 0.4, 0.1]), groups)

    assert accuracies == pytest.approx({"many": 0.75, "medium": 0.4, "few": 0.1})


def test_a_group_without_classes_gives_no_accuracy():
    groups = size_groups([500, 300, 200, 5], GroupsSpec())

    assert group_accuracies(np.array([1.0, 0.5, 0.4, 0.1]), groups).keys() == {"many", "few"}
