"""The gap between the best trial and the baseline: its standard error, and what is said where there is none."""

import math

import pytest

from gitdist.spec.objective import VALIDATION_METRICS
from gitdist.study.gap import Estimate, find_gaps, summary_gaps

BEST = {
    "val/balanced_accuracy": 0.95,
    "val/balanced_accuracy_se": 0.03,
    "test/balanced_accuracy": 0.9,
    "val/ekld": 0.25,
}
BASELINE = {**BEST, "val/balanced_accuracy": 0.9, "val/balanced_accuracy_se": 0.04, "val/ekld": 0.5}
OBJECTIVES = {"val/balanced_accuracy": "maximize", "val/ekld": "minimize"}


def test_the_error_of_a_gap_is_that_of_independent_estimates():
    accuracy, on_test, ekld = find_gaps(OBJECTIVES, BEST, BASELINE)
    assert (accuracy.metric, accuracy.split, ekld.metric, ekld.split) == (
        "balanced_accuracy",
        "validation",
        "ekld",
        "validation",
    )
    assert accuracy.best == Estimate(0.95, 0.03) and accuracy.baseline == Estimate(0.9, 0.04)
    assert accuracy.difference.value == pytest.approx(0.05)
    assert accuracy.difference.standard_error == pytest.approx(math.hypot(0.03, 0.04))
    assert (on_test.split, on_test.difference) == ("test", Estimate(0.0, None))
    assert ekld.difference == Estimate(-0.25, None)


@pytest.mark.parametrize(
    ("objective", "best", "baseline", "error", "hint"),
    [
        ("val/balanced_accuracy", 0.6, 0.5, 0.05, None),
        ("val/balanced_accuracy", 0.6, 0.5, None, None),
        ("val/balanced_accuracy", 0.6, 0.5, 0.08, "the gap is smaller than its standard error"),
        ("val/balanced_accuracy", 0.5, 0.5, 0.0, "no gain over the baseline"),
        ("val/few_accuracy", 0.4, 0.5, 0.01, "no gain over the baseline"),
        ("val/ekld", 0.4, 0.5, 0.01, None),
        ("val/ekld", 0.5, 0.4, None, "no gain over the baseline"),
    ],
)
def test_a_gap_that_is_no_gain_is_named(objective, best, baseline, error, hint):
    known = {} if error is None else {f"{objective}_se": error}
    (gap,) = find_gaps(
        {objective: VALIDATION_METRICS[objective]}, {objective: best, **known}, {objective: baseline, **known}
    )
    assert gap.hint == hint and gap.sentence("x").endswith(hint or ("" if error is None else "(± standard error)"))


def test_a_stated_direction_decides_what_is_a_gain():
    (gap,) = find_gaps({"val/ekld": "maximize"}, {"val/ekld": 0.4}, {"val/ekld": 0.5})
    assert gap.hint == "no gain over the baseline"
    chosen = [{"val": {"val/ekld": value}, "test": {}} for value in (0.4, 0.5)]
    summary = {"objectives": ["val/ekld"], "directions": ["maximize"], "best": chosen[0], "baseline": chosen[1]}
    assert summary_gaps(summary) == [gap]


def test_a_study_without_a_baseline_has_no_gap():
    (gap, *_) = find_gaps(OBJECTIVES, BEST, None)
    assert (gap.baseline, gap.difference, gap.hint) == (None, None, None)
    assert gap.sentence("balanced accuracy") == "balanced accuracy, validation: best 0.9500 ± 0.0300 (± standard error)"


def test_a_summary_of_version_0_5_0_has_gaps_without_errors():
    chosen = [{"val": {"val/balanced_accuracy": value}, "test": {}} for value in (0.75, 0.5)]
    summary = {"objectives": ["val/balanced_accuracy"], "best": chosen[0], "baseline": chosen[1]}
    (gap,) = summary_gaps(summary)
    assert gap.difference == Estimate(0.25, None)
    assert gap.sentence("accuracy") == "accuracy, validation: best 0.7500, baseline 0.5000, gap +0.2500"
    assert summary_gaps({**summary, "best": None}) == []
    assert summary_gaps({"best": chosen[0]}) == []
