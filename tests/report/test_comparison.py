from dataclasses import replace

import numpy as np
import pytest

from gitdist.report.comparison import ReplicateKey, Report, compare
from gitdist.report.findings import variance_sources
from gitdist.report.metrics import SEVERAL
from gitdist.report.statistics import interval
from gitdist.report.tables import correlation_table, method_table
from tests.report.studies import SIZES, study, trial

SAMPLERS = {"sampler": {"choice": ["instance", "class-balanced"]}, "seed": {"choice": [0, 1]}}


def key(seed, version, stream=0):
    return ReplicateKey(seed, version, 0, stream)


def grid(**more):
    return [
        trial(number, {"sampler": sampler, "seed": seed}, accuracy=0.5 + 0.1 * seed, **more)
        for number, (sampler, seed) in enumerate(
            [("class-balanced", 1), ("instance", 0), ("instance", 1), ("class-balanced", 0)]
        )
    ]


def member(version, nuisance="background", draws=None, **more):
    """A campaign's study."""
    labels = {"data.nuisance": nuisance, "data.version": version} | ({"draws": draws} if draws else {})
    data = {"source": "digits", "nuisance": nuisance, "version": version}
    return study(f"s{version}{nuisance}{draws}", SAMPLERS, grid(**more), labels, data=data)


def test_seeds_make_replicates_and_settings_are_in_the_order_of_choices():
    (comparison,) = compare([study(space=SAMPLERS, trials=grid(), baseline=trial(None))])
    assert [setting.label for setting in comparison.settings] == [
        "baseline",
        "sampler instance",
        "sampler class-balanced",
    ]
    assert [len(setting.replicates) for setting in comparison.settings] == [1, 2, 2]
    assert comparison.settings[2].values("balanced_accuracy", "test") == {key(1, 0): 0.6, key(0, 0): 0.5}
    assert [setting.index for setting in comparison.settings] == [0, 1, 2] and not comparison.searched


def test_versions_make_replicates_and_nuisances_make_comparisons():
    comparisons = compare([member(0), member(1), member(0, "rotation")])
    assert [comparison.title for comparison in comparisons] == ["digits, background", "digits, rotation"]
    assert [[len(setting.replicates) for setting in comparison.settings] for comparison in comparisons] == [
        [4, 4],
        [2, 2],
    ]
    expected = {key(seed, version) for seed in (0, 1) for version in (0, 1)}
    assert set(comparisons[0].settings[0].values("ekld", "test")) == expected


def test_other_studies_make_no_replicates_and_their_labels_distinguish_them():
    (comparison,) = compare([member(0, draws="munit"), member(0, draws="oracle")])
    assert [setting.label for setting in comparison.settings] == [
        "sampler instance (munit)",
        "sampler class-balanced (munit)",
        "sampler instance (oracle)",
        "sampler class-balanced (oracle)",
    ]
    assert {len(setting.replicates) for setting in comparison.settings} == {2}


def test_studies_that_differ_in_more_than_seeds_and_version_make_no_replicates():
    (comparison,) = compare(
        [study(f"s{n}", trials=[trial(0, accuracy=n / 2)], labels={"generator.dim": n}) for n in (0, 1)]
    )
    assert [set(setting.values("balanced_accuracy", "test").values()) for setting in comparison.settings] == [
        {0.0},
        {0.5},
    ]
    assert comparison.settings[1].label == "the study's setting (dim 1)"


def campaign(axis, part, **augmented):
    """Two seeds of a generator or stream, each with a trial that takes draws and one that takes none."""
    space = {"fraction": {"choice": [0.0, 0.5]}, "seed": {"choice": [0, 1]}}
    points = [{"fraction": fraction, "seed": seed} for fraction in (0.0, 0.5) for seed in (0, 1)]
    return [
        study(
            f"s{n}",
            space,
            [
                trial(
                    at,
                    point,
                    accuracy=0.5 + 0.1 * point["seed"] + point["fraction"] * (0.1 + 0.2 * n),
                    augmented=point["fraction"] > 0,
                )
                for at, point in enumerate(points)
            ],
            {axis: n},
            **{part: {"kind": "munit", "seed": n} if part == "generator" else {"seed": n}},
        )
        for n in (0, 1)
    ]


@pytest.mark.parametrize("part", ["generator", "stream"])
@pytest.mark.parametrize("named", ["itself", "replicate"])
def test_seeds_of_generator_and_stream_make_replicates_of_trials_with_draws_only(part, named):
    (comparison,) = compare(campaign(f"{part}.seed" if named == "itself" else named, part))
    without, augmented = comparison.settings
    assert (without.label, augmented.label) == ("p 0", "p 0.5")
    assert set(without.values("balanced_accuracy", "test")) == {ReplicateKey(seed, 0) for seed in (0, 1)}
    seeds = [(seed, n) for seed in (0, 1) for n in (0, 1)]
    keys = {ReplicateKey(seed, 0, *((n, 0) if part == "generator" else (0, n))) for seed, n in seeds}
    assert set(augmented.values("balanced_accuracy", "test")) == keys
    difference = augmented.difference(without, "balanced_accuracy", "test")
    expected = interval([0.05, 0.15, 0.05, 0.15])
    assert (difference.n, difference.mean, difference.half_width) == (
        4,
        pytest.approx(expected.mean),
        pytest.approx(expected.half_width),
    )
    assert without.difference(augmented, "balanced_accuracy", "test").mean == pytest.approx(-expected.mean)


def test_invariance_under_generators_of_several_seeds_is_compared():
    records = [
        replace(
            study(
                f"{draws}{n}",
                trials=[trial(0)],
                labels={"draws": draws, "generator.seed": n},
                data={"source": "digits", "nuisance": "none"},
                generator={"kind": "munit", "seed": n},
            ),
            generator=f"generator-{n}{draws if differ else ''}",
        )
        for differ in (False, True)
        for draws in ("a", "b")
        for n in (0, 1)
    ]
    assert [compare(part)[0].ekld_under for part in (records[:4], records[4:])] == ["munit", SEVERAL]


def test_the_sources_of_variance_are_those_that_the_replicates_differ_in():
    def sources(*studies):
        return variance_sources(compare(studies)[0])

    assert sources(study(trials=[trial(0)])) == "One replicate per setting, so no interval."
    seeds = [trial(n, {"seed": n}) for n in (0, 1, 2)]
    space = {"seed": {"choice": [0, 1, 2]}}
    fixed = "Intervals contain the variance of training seed (3), not of data version or generator seed or stream seed."
    assert sources(study(space=space, trials=seeds)) == fixed
    own = study(space=space, trials=seeds, stream={"per_seed": True})
    assert sources(own) == f"{fixed} Each training seed has its own stream."
    plain = [replace(each, augmented=False) for each in seeds]
    assert (
        sources(study(space=space, trials=plain))
        == "Intervals contain the variance of training seed (3), not of data version."
    )
    oracle = study(space=space, trials=seeds, generator={"kind": "oracle"})
    assert "generator seed" not in sources(oracle) and "stream seed" in sources(oracle)
    assert sources(member(0), member(1)) == (
        "Intervals contain the variance of training seed (2) and data version (2), not of generator seed or stream "
        "seed. Each data version has its own generator. Replicates that share one of these values count as independent."
    )
    assert sources(*campaign("generator.seed", "generator")) == (
        "Intervals contain the variance of training seed (2) and generator seed (2), not of data version or stream "
        "seed. Replicates that share one of these values count as independent."
    )
    together = [
        study(
            f"s{n}",
            None,
            [trial(0, {"seed": n})],
            {"replicate": f"r{n}"},
            generator={"kind": "munit", "seed": n},
            stream={"seed": n},
        )
        for n in (0, 1)
    ]
    assert sources(*together) == (
        "Intervals contain the variance of training seed (2), generator seed (2) and stream seed (2), "
        "not of data version."
    )
    (comparison,) = compare(together)
    for table in (method_table(comparison), *correlation_table(Report(together))):
        assert variance_sources(comparison) in table.caption


@pytest.mark.parametrize("axis", ["seed", "trial.seed"])
def test_the_seed_of_a_study_or_of_its_trials_makes_replicates(axis):
    records = [
        study(
            f"s{n}",
            trials=[replace(trial(0, accuracy=n / 2), seed=n)],
            labels={axis: n},
            **{"seed": n} if axis == "seed" else {"trial": {"seed": n}},
        )
        for n in (0, 1)
    ]
    (comparison,) = compare(records)
    streams = (0, 1) if axis == "seed" else (0, 0)
    assert [setting.values("balanced_accuracy", "test") for setting in comparison.settings] == [
        {key(0, 0, streams[0]): 0.0, key(1, 0, streams[1]): 0.5}
    ]


def test_a_repeated_trial_is_one_replicate():
    (comparison,) = compare([study(trials=[trial(0, accuracy=0.5), trial(1, accuracy=0.5)])])
    assert [len(setting.replicates) for setting in comparison.settings] == [1]


def test_of_many_settings_the_best_on_validation_is_compared_with_the_baseline():
    trials = [trial(n, {"fraction": n / 10}, accuracy=0.9 - abs(n - 3) / 10, test=n == 3) for n in range(9)]
    space = {"fraction": {"float": [0.0, 1.0]}}
    (comparison,) = compare([study(space=space, trials=trials, baseline=trial(None))])
    assert [setting.label for setting in comparison.settings] == ["baseline", "best setting"] and comparison.searched
    assert comparison.settings[1].replicates[0].trial.trial.number == 3
    assert (comparison.split, comparison.trials_split) == ("test", "validation")


def test_of_many_settings_the_best_one_that_meets_the_constraints_is_shown():
    trials = [trial(n, {"fraction": n / 10}, accuracy=n / 10, feasible=n < 4) for n in range(9)]
    (comparison,) = compare([study(space={"fraction": {"float": [0.0, 1.0]}}, trials=trials)])
    assert [setting.replicates[0].trial.trial.number for setting in comparison.settings] == [3]


def test_of_many_settings_the_best_of_each_method_is_shown_with_all_its_replicates():
    space = {"threshold": {"choice": [1, 2, 3, 4, 5, 6, 7]}, "seed": {"choice": [0, 1]}}
    points = [{"method": "GIT", "threshold": k, "seed": seed} for k in range(1, 8) for seed in (0, 1)]
    points += [{"method": "plain", "seed": seed} for seed in (0, 1)]
    accuracies = [0.9, 0.1, 0.6, 0.7, *[0.5] * 12]  # the best trial has not the best setting
    trials = [trial(n, point, accuracy=x) for n, (point, x) in enumerate(zip(points, accuracies, strict=True))]
    (comparison,) = compare([study(space=space, trials=trials)])
    assert {setting.label: setting.values("balanced_accuracy", "test") for setting in comparison.settings} == {
        "GIT, best setting": {key(0, 0): 0.6, key(1, 0): 0.7},
        "plain": {key(0, 0): 0.5, key(1, 0): 0.5},
    }


@pytest.mark.parametrize(
    ("algorithm", "test", "num_settings"), [("grid", True, 9), ("grid", False, 1), ("tpe", True, 1)]
)
def test_the_table_of_a_grid_has_every_setting_that_is_known_on_the_split(algorithm, test, num_settings):
    trials = [trial(n, {"fraction": n / 10}, accuracy=0.9 - abs(n - 3) / 10, test=test or n == 3) for n in range(9)]
    space = {"fraction": {"choice": [n / 10 for n in range(9)]}}
    record = study(trials=trials, search={"algorithm": algorithm, "space": space})
    (comparison,) = compare([record])
    assert [setting.label for setting in comparison.settings] == ["best setting"]
    assert len(comparison.table_settings) == len(method_table(comparison).rows) == num_settings


def test_unfinished_trials_are_not_compared():
    assert compare([study(trials=[trial(0, state="failed"), trial(1, state="open")])]) == ()


@pytest.mark.parametrize("test", [True, False])
def test_the_split_is_test_if_all_trials_are_evaluated_on_it(test):
    (comparison,) = compare(
        [
            study(
                trials=[trial(0, {"fraction": 0.1}), trial(1, {"fraction": 0.2}, test=test)],
                space={"fraction": {"float": [0, 1]}},
            )
        ]
    )
    assert comparison.split == comparison.trials_split == ("test" if test else "validation")


def test_versions_are_pooled_by_class_size():
    first = member(0, sizes=(200, 100, 50, 20, 5))
    second = member(1, sizes=(5, 5, 200, 100, 50), slope=0.2)
    third = member(2, sizes=(5, 20, 50, 200, 100), slope=0.3)
    comparisons = compare([first, second, third])
    assert len(comparisons) == 2  # another profile is another comparison
    setting = comparisons[0].settings[0]
    curve = setting.by_class_size("ekld", "test")
    assert list(curve) == list(SIZES)
    expected = interval([slope / np.sqrt(20) for slope in (0.1, 0.1, 0.3, 0.3)])
    assert (curve[20].mean, curve[20].half_width) == (pytest.approx(expected.mean), pytest.approx(expected.half_width))
    found = setting.size_correlation("ekld", "test")
    assert (found.mean, found.n, found.limits) == (pytest.approx(-1.0), 4, (-1.0, 1.0))
    assert setting.size_correlation("consistency", "test").mean == pytest.approx(1.0)


def test_classes_of_one_size_count_as_their_mean():
    comparison = compare([member(1, sizes=(5, 5, 200, 100, 50))])[0]
    curve = comparison.settings[0].by_class_size("ekld", "test")
    assert list(curve) == [200, 100, 50, 5] and curve[5].mean == pytest.approx(0.1 / np.sqrt(5))
