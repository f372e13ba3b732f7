import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gitdist.report.confirmation import read_confirmation
from gitdist.spec.confirmation import Selected
from gitdist.spec.file import parse_study
from tests.report.studies import study, trial

BASE, GAIN = (0.70, 0.72, 0.74, 0.71), (0.03, 0.05, 0.01, 0.04)
SPEC = parse_study({"name": "s", "data": {"source": "digits", "nuisance": "background"}}, "test")
SELECTED = Selected(spec=SPEC, trial=4, fields={"threshold": 30}, seeds=frozenset({0}))


def confirmed(gains=GAIN, searched=0.8, **changes):
    methods = {"baseline": {"fraction": 0}, "trial 4": {"threshold": 30}}
    trials = []
    for seed, (base, gain) in enumerate(zip(BASE, gains, strict=True)):
        for method, accuracy in (("baseline", base), ("trial 4", base + gain)):
            params = {"method": method, "seed": seed + 1}
            trials.append(trial(len(trials), params, accuracy=accuracy, augmented=method != "baseline"))
    trials = [replace(each, **changes.get(str(each.trial.number), {})) for each in trials]
    space = {"method": {"choice": list(methods)}, "seed": {"choice": [1, 2, 3, 4]}}
    values = {"methods": methods, "search": {"space": space, "total": 8, "algorithm": "grid"}}
    return read_confirmation(SELECTED, [searched], ["training"], [study(trials=trials, **values)])


def metric(found, name="balanced_accuracy", split="test"):
    return next(each for each in found.metrics if (each.metric, each.split) == (name, split))


def test_the_difference_is_paired_and_its_interval_is_students_t():
    found = metric(confirmed())
    low, high = stats.ttest_1samp(GAIN, 0).confidence_interval(0.95)
    assert np.allclose(found.difference.ends, (low, high)) and found.difference.n == 4
    assert found.selected.mean - found.baseline.mean == pytest.approx(found.difference.mean)


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [(GAIN, "better"), ([-gain for gain in GAIN], "worse"), ((0.05, -0.05, 0.01, 0.0), "contains 0"), ([0] * 4, "0")],
)
def test_the_answer_says_no_more_than_the_interval(gains, verdict):
    assert verdict in confirmed(gains).answer.partition(";")[2]


def test_an_objective_to_minimise_is_better_if_it_falls():
    search = {"objective": "val/ekld"}
    spec = parse_study({"name": "s", "data": SPEC.data.model_dump(), "search": search}, "test")
    trials = [
        trial(2 * seed + index, {"method": method, "seed": seed}, slope=slope + seed / 100)
        for seed in range(3)
        for index, (method, slope) in enumerate([("baseline", 0.3), ("trial 4", 0.1 + seed / 50)])
    ]
    found = read_confirmation(replace(SELECTED, spec=spec), [0.01], ["training"], [study(trials=trials)])
    assert "better" in found.answer and metric(found, "ekld").difference.mean < 0
    assert found.optimism[0].difference < 0  # the search saw a lower one


def test_optimism_is_the_value_of_the_search_minus_the_mean_over_fresh_seeds():
    (found,) = confirmed(searched=0.9).optimism
    assert found.difference == pytest.approx(0.9 - np.mean(np.add(BASE, GAIN)))


def test_a_training_that_failed_takes_its_pair_out_of_all_figures():
    found = confirmed(**{"0": {"state": "failed"}})
    assert (found.num_pairs, found.num_planned) == (3, 4)
    assert metric(found).difference.mean == pytest.approx(np.mean(GAIN[1:]))
    assert metric(found).selected.mean == pytest.approx(np.mean(np.add(BASE, GAIN)[1:]))


def test_a_metric_that_one_training_lacks_is_compared_over_the_other_pairs():
    lacking = trial(0, accuracy=0.9, augmented=False).splits
    bare = {split: replace(each, metrics={"ekld": 1.0}) for split, each in lacking.items()}
    found = metric(confirmed(**{"0": {"splits": bare}}))
    assert found.difference.n == found.baseline.n == found.selected.n == 3
    assert found.selected.mean - found.baseline.mean == pytest.approx(found.difference.mean)


def test_what_is_written_has_all_numbers():
    found = confirmed()
    written = json.loads(json.dumps(found.to_json()))
    assert written["pairs"] == 4 and written["varied"] == ["training"] and written["fixed"] == ["generator", "data"]
    assert len(written["metrics"]) == len(found.metrics) and written["setting"] == {"threshold": 30}
