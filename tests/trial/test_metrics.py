import math
import warnings

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from sklearn.metrics import balanced_accuracy_score

from gitdist.data.longtail import size_groups
from gitdist.spec import GroupsSpec
from gitdist.trial.metrics import (
    balanced_mean,
    balanced_standard_error,
    consistency,
    expected_kl,
    group_accuracies,
    log_probabilities,
    mean_variances,
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

    assert not expected_kl(log_p, log_p[:, None].clone()).any()


def test_kl_is_never_negative_where_distributions_nearly_agree():
    logits = torch.randn(2000, 10, generator=torch.Generator().manual_seed(2))
    nudged = logits * (1 + 1e-7)

    assert (expected_kl(log_probabilities(logits), log_probabilities(nudged)[:, None]) >= 0).all()


def test_a_probability_of_zero_contributes_nothing():
    impossible = torch.tensor([[0.0, -math.inf]], dtype=torch.float64)
    even = torch.full((1, 2), math.log(0.5), dtype=torch.float64)

    assert expected_kl(impossible, even[:, None]).tolist() == pytest.approx([math.log(2)])
    assert expected_kl(impossible, impossible[:, None]).tolist() == [0.0]


def test_balanced_accuracy_equals_scikit_learns():
    rng = np.random.default_rng(3)
    labels = rng.choice(7, 500, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05, 0.0])
    predictions = np.where(rng.random(500) < 0.6, labels, rng.integers(0, 7, 500))

    ours = balanced_mean(per_class_mean((predictions == labels).astype(float), labels, 7))

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


def standard_error(values, labels, groups, num_classes):
    means = per_class_mean(values, labels, num_classes)
    return balanced_standard_error(means, mean_variances(values, labels, groups, num_classes))


def standard_error_by_the_formula(values, labels, groups, num_classes):
    """The cluster-robust variance of each class's mean, one sum after the other; every class has several groups."""
    total = 0.0
    for label in range(num_classes):
        rows = [row for row in range(len(labels)) if labels[row] == label]
        mean = sum(values[row] for row in rows) / len(rows)
        names = {groups[row] for row in rows}
        squares = sum(sum(values[row] - mean for row in rows if groups[row] == name) ** 2 for name in names)
        total += len(names) / (len(names) - 1) * squares / len(rows) ** 2
    return math.sqrt(total) / num_classes


def grouped_answers(rng, groups_per_class, images_per_group, spread=0.25):
    """Right (1) and wrong (0) answers whose probability differs between groups, with labels and groups."""
    num_groups = sum(groups_per_class)
    class_of = np.repeat(np.arange(len(groups_per_class)), groups_per_class)
    chance = np.clip(0.6 + spread * rng.standard_normal(num_groups), 0.0, 1.0)
    counts = rng.integers(1, 2 * images_per_group, num_groups)
    groups = np.repeat(np.arange(num_groups), counts)
    return (rng.random(len(groups)) < chance[groups]).astype(float), class_of[groups], groups


@pytest.mark.parametrize("clustered", [True, False])
def test_the_standard_error_equals_its_formula(clustered):
    values, labels, groups = grouped_answers(np.random.default_rng(0), (2, 5, 30), 6)
    names = groups if clustered else np.arange(len(groups))

    found = standard_error(values, labels, groups if clustered else None, 3)

    assert found == pytest.approx(standard_error_by_the_formula(values, labels, names, 3), rel=1e-12)
    assert found == pytest.approx(standard_error(values, labels, names, 3), rel=1e-12)


def test_the_standard_error_of_one_class_is_the_usual_one():
    values = np.random.default_rng(1).random(40)

    found = standard_error(values, np.zeros(40, np.int64), None, 1)

    assert found == pytest.approx(values.std(ddof=1) / math.sqrt(40), rel=1e-12)


def test_the_standard_error_agrees_with_scipys_bootstrap_of_whole_groups():
    rng = np.random.default_rng(2)
    values, labels, groups = grouped_answers(rng, (40, 60, 50), 8)
    sums, counts = (np.bincount(groups, weights=weights) for weights in (values, np.ones(len(values))))
    of_class = [np.unique(groups[labels == label]) for label in range(3)]

    def balanced_accuracy(*drawn, axis=-1):
        return np.mean([sums[each].sum(axis) / counts[each].sum(axis) for each in drawn], axis=0)

    resampled = bootstrap(
        of_class,
        balanced_accuracy,
        n_resamples=4000,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(3),
    )

    assert standard_error(values, labels, groups, 3) == pytest.approx(resampled.standard_error, rel=0.06)


def test_the_standard_error_is_the_deviation_over_repeated_samples_of_groups():
    """Images of one object answer alike: errors that take them as independent are too small by half."""
    samples = [grouped_answers(np.random.default_rng([4, sample]), (6, 12, 20), 10) for sample in range(1500)]

    accuracies = [np.nanmean(per_class_mean(values, labels, 3)) for values, labels, _ in samples]
    clustered, naive = (
        math.sqrt(np.mean([standard_error(v, labels, g if by_group else None, 3) ** 2 for v, labels, g in samples]))
        for by_group in (True, False)
    )

    assert clustered == pytest.approx(np.std(accuracies), rel=0.06)
    assert naive < 0.75 * np.std(accuracies)


def test_classes_of_one_group_count_with_their_difference_from_the_mean():
    values, labels = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0]), np.arange(6)
    alone = standard_error(values, labels, None, 6)
    assert alone == pytest.approx(values.std(ddof=1) / math.sqrt(6), rel=1e-12)
    mixed = standard_error(np.array([1.0, 0.0, 1.0]), np.array([0, 0, 1]), None, 3)  # class 2 has no image
    assert mixed == pytest.approx(math.sqrt(0.25 + 2 * 0.25**2) / 2, rel=1e-12)
    one_group = standard_error(np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]), 2)
    assert one_group == pytest.approx(math.sqrt(2 * 0.25**2) / 2, rel=1e-12)


def test_the_rule_for_classes_of_one_group_is_not_too_small():
    """Every second class has one image; over repeated samples the error is at least the deviation."""
    rng = np.random.default_rng(5)
    chance, counts = np.linspace(0.3, 0.9, 8), np.array([1, 20] * 4)
    labels = np.repeat(np.arange(8), counts)
    answers = [(rng.random(len(labels)) < chance[labels]).astype(float) for _ in range(2000)]
    deviation = np.std([per_class_mean(each, labels, 8).mean() for each in answers])
    squares = np.mean([standard_error(each, labels, None, 8) ** 2 for each in answers])
    assert deviation < math.sqrt(squares) < 1.2 * deviation


def test_without_two_groups_there_is_no_standard_error():
    assert standard_error(np.ones(1), np.zeros(1, np.int64), None, 3) is None
    assert standard_error(np.ones(4), np.zeros(4, np.int64), np.zeros(4, np.int64), 1) is None
    assert balanced_standard_error(np.full(2, np.nan), np.full(2, np.nan)) is None
