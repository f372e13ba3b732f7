"""The measures of a trial, from what its files hold."""

import pytest

from gitdist.data.longtail import size_groups
from gitdist.report.records import split_metrics


def test_a_shot_group_with_a_class_that_is_never_answered_has_no_mean_over_right_answers():
    groups = size_groups((200, 150, 50, 10, 5), "auto")  # many: 200 and 150; few: 10 and 5
    accuracy = [0.9, 0.8, None, 0.1, 0.0]  # of the third one, the split has no images
    per_class = {"accuracy": accuracy, "ekld": [0.1, 0.2, None, 0.3, 0.4], "right_ekld": [0.1, 0.2, None, 0.5, None]}
    found = split_metrics({"test/balanced_accuracy": 0.45}, per_class, "test/", groups)
    means = {"many_ekld": 0.15, "few_ekld": 0.35, "many_right_ekld": 0.15}
    assert found.metrics == pytest.approx({"balanced_accuracy": 0.45} | means)
