import pytest

from gitdist.errors import TrialFailure
from gitdist.spec import Dimension, TrialSpec
from gitdist.study.space import baseline_spec, grid_points, grid_size, trial_spec


def test_grid_points_spread_over_ranges_and_keep_choices():
    space = {
        "threshold": Dimension(int=(10, 1000), log=True, points=3),
        "fraction": Dimension(float=(0.1, 0.9), points=5),
        "epochs": Dimension(int=(10, 30), step=10),
        "sampler": Dimension(choice=("instance", None)),
    }
    points = grid_points(space)
    assert points["threshold"] == [10, 100, 1000]
    assert points["fraction"] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert points["epochs"] == [10, 20, 30]
    assert points["sampler"] == ["instance", None]
    assert grid_size(space) == 3 * 5 * 3 * 2


def test_searched_parameters_replace_fields_of_the_base():
    base = TrialSpec(epochs=7, fraction=0.5)
    trial = trial_spec(base, {"fraction": 0.9, "threshold": 30})
    assert (trial.epochs, trial.fraction, trial.threshold) == (7, 0.9, 30)


def test_an_impossible_combination_is_a_failed_trial_not_a_crash():
    with pytest.raises(TrialFailure, match="fraction"):
        trial_spec(TrialSpec(), {"fraction": 2.0})


def test_the_baseline_is_the_base_without_augmentation():
    base = TrialSpec(fraction=0.5, sampler="square-root")
    assert baseline_spec(base) == base.model_copy(update={"fraction": 0.0})
