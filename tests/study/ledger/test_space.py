import itertools
import warnings

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from gitdist.errors import TrialFailedError
from gitdist.spec import Dimension, SearchSpec, StudySpec, TrialSpec
from gitdist.study.ledger.space import (
    distribution,
    field_importances,
    grid_plan,
    grid_points,
    num_omitted_points,
)

CONDITIONAL = {
    "ldam_scale": Dimension(int=(10, 30), points=3, when={"loss": "ldam"}),
    "loss": Dimension(choice=("cross-entropy", "ldam")),
    "fraction": Dimension(float=(0.1, 0.9), points=2),
}


def test_grid_points_spread_over_ranges_and_keep_choices():
    space = {
        "threshold": Dimension(int=(10, 1000), log=True, points=3),
        "fraction": Dimension(float=(0.1, 0.9), points=5),
        "epochs": Dimension(int=(10, 30), step=10),
        "lr": Dimension(float=(0.1, 0.75), step=0.2),
        "sampler": Dimension(choice=("instance", None)),
    }
    values = {name: [point[name] for point in grid_points({name: space[name]})] for name in space}
    assert values["threshold"] == [10, 100, 1000]
    assert values["fraction"] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert values["epochs"] == [10, 20, 30]
    assert values["lr"] == [0.1, 0.3, 0.5, 0.7]
    assert values["sampler"] == ["instance", None]
    assert grid_points(space) == [
        dict(zip(space, point, strict=True)) for point in itertools.product(*(values[name] for name in space))
    ]


def test_a_grid_with_conditions_has_each_distinct_point_once():
    points = [frozenset(point.items()) for point in grid_points(CONDITIONAL)]
    expected = {
        frozenset({("loss", loss), ("fraction", fraction), *([("ldam_scale", scale)] if loss == "ldam" else [])})
        for loss in ("cross-entropy", "ldam")
        for fraction in (0.1, 0.9)
        for scale in (10, 20, 30)
    }
    assert len(points) == len(expected) == 8
    assert set(points) == expected


def test_a_grid_is_tried_in_an_order_of_its_seed():
    plans = [grid_plan(SearchSpec(space=CONDITIONAL, algorithm="grid", seed=seed)) for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]
    assert sorted(plans[2], key=str) == sorted(plans[0], key=str)


def test_a_grid_starts_with_what_is_to_be_tried_first_and_tries_nothing_twice():
    first = ({"loss": "ldam", "ldam_scale": 20, "fraction": 0.9}, {"fraction": 0.5}, {"loss": "ldam"}, {"loss": "ldam"})
    plan = grid_plan(SearchSpec(space=CONDITIONAL, algorithm="grid", try_first=first))
    assert all(tried.items() <= point.items() for tried, point in zip(first, plan, strict=False))
    assert len(plan) == 8 + 1  # a fraction of 0.5 lies beside the grid
    assert len({frozenset(point.items()) for point in plan}) == len(plan)
    assert all(("ldam_scale" in point) == (point["loss"] == "ldam") for point in plan)


def test_dimensions_as_distributions():
    assert distribution(Dimension(int=(1, 9), log=True)) == IntDistribution(1, 9, log=True)
    assert distribution(Dimension(float=(0.1, 0.9))) == FloatDistribution(0.1, 0.9)
    assert distribution(Dimension(choice=("a", None))) == CategoricalDistribution(("a", None))


def test_a_range_ends_with_its_last_step():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert distribution(Dimension(float=(0.1, 0.75), step=0.2)) == FloatDistribution(0.1, 0.7, step=0.2)
        assert distribution(Dimension(int=(1, 9), step=3)) == IntDistribution(1, 7, step=3)


def test_searched_parameters_replace_fields_of_the_base():
    study = StudySpec(name="study", trial=TrialSpec(epochs=7, fraction=0.5))
    trial = study.trial_of({"fraction": 0.9, "threshold": 30})
    assert (trial.epochs, trial.fraction, trial.threshold) == (7, 0.9, 30)


def test_an_impossible_combination_is_a_failed_trial_not_a_crash():
    with pytest.raises(TrialFailedError) as caught:
        StudySpec(name="study").trial_of({"epochs": 20, "switch_epoch": 30})
    rule = "trial: switch_epoch must not lie beyond epochs, but 30 > 20"
    assert str(caught.value) == f"{rule}, but the trial has epochs 20, switch_epoch 30"


def test_a_methods_fields_come_before_those_that_are_searched_beside_it():
    study = StudySpec(
        name="study",
        trial=TrialSpec(epochs=10, lr=0.2),
        methods={"ERM": {"sampler": "instance", "fraction": 0.0}, "long": {"epochs": 20, "seed": 3}},
    )
    assert study.search.space["method"].choice == ("ERM", "long")
    erm = study.trial_of({"method": "ERM", "seed": 2})
    assert (erm.sampler, erm.fraction, erm.lr, erm.seed) == ("instance", 0.0, 0.2, 2)
    long = study.trial_of({"method": "long", "seed": 2})
    assert (long.epochs, long.lr_milestones, long.seed) == (20, (12, 16), 2)
    assert study.trial_of({"method": "long"}).seed == 3


def test_a_grid_says_how_many_of_its_points_total_leaves_out():
    space = {"sampler": {"choice": ["instance", "square-root"]}, "seed": {"choice": [0, 1, 2]}}
    counted = [num_omitted_points(SearchSpec(algorithm="grid", total=total, space=space)) for total in (4, 6, 7)]
    assert counted == [2, 0, 0]
    assert num_omitted_points(SearchSpec(algorithm="random", total=4, space=space)) == 0


@pytest.mark.parametrize("sign", [1, -1])
def test_the_field_that_decides_the_objective_is_the_most_important_one(sign):
    space = {"fraction": {"float": [0.0, 1.0]}, "sampler": {"choice": ["instance", "square-root"]}}
    objective = "val/balanced_accuracy" if sign == 1 else "val/ekld"
    search = SearchSpec.model_validate({"space": space, "objective": objective})
    points = [{"fraction": n / 20, "sampler": space["sampler"]["choice"][n % 2], "seed": n} for n in range(20)]
    trials = [(point, sign * point["fraction"]) for point in points]
    shares = field_importances(search, list(space), trials)
    assert list(shares) == ["fraction", "sampler"]
    assert sum(shares.values()) == pytest.approx(1) and shares["fraction"] > 0.9
