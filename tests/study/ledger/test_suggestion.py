import copy
import random

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.errors import SpecError, StudyError
from gitdist.spec import Dimension, SearchSpec
from gitdist.study.ledger.algorithms import build_sampler
from gitdist.study.ledger.records import RETRY_OF
from gitdist.study.ledger.space import grid_points
from gitdist.study.ledger.suggestion import SAMPLER, Suggestion, Suggestions, check_sampler

SPACE = {
    "threshold": Dimension(int=(10, 1000), log=True),
    "fraction": Dimension(float=(0.1, 0.9)),
    "sampler": Dimension(choice=("instance", "class-balanced")),
    "loss": Dimension(choice=("cross-entropy", "ldam")),
    "ldam_scale": Dimension(int=(10, 30), when={"loss": "ldam"}),
    "ldam_margin": Dimension(float=(0.1, 0.9), when={"loss": "ldam", "sampler": "instance"}),
}


def numbered(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    for number, trial in enumerate(trials):
        trial.number = number
    return trials


def suggest(search: SearchSpec, past: list[FrozenTrial]) -> Suggestion:
    """What a driver suggests that resumes the search."""
    return Suggestions(search).suggest(past, len(past))


def trial_of(search: SearchSpec, past: list[FrozenTrial], **fields) -> FrozenTrial:
    made = suggest(search, past)
    return create_trial(params=made.params, distributions=made.distributions, system_attrs=made.system_attrs, **fields)


def history(search: SearchSpec, count: int) -> list[FrozenTrial]:
    """Trials that ended in all ways, each suggested from those before it."""
    past: list[FrozenTrial] = []
    for number in range(count):
        value = random.Random(number).random()
        if number % 5 == 3:
            fields = {"state": TrialState.FAIL}
        elif number % 5 == 4 and len(search.objectives) == 1:
            fields = {"state": TrialState.PRUNED, "value": value, "intermediate_values": {1: 0.0, 2: value}}
        else:
            fields = {"values": [value, 1 - value**2][: len(search.objectives)]}
        past = numbered([*past, trial_of(search, past, **fields)])
    return past


@pytest.mark.parametrize("algorithm", ["tpe", "random", "grid"])
def test_a_suggestion_depends_on_search_past_and_number_alone(algorithm):
    search = SearchSpec(space=SPACE, algorithm=algorithm, total=20, startup=4)
    past = history(search, 12)
    first = suggest(search, past)
    suggest(search, past[:5])
    assert suggest(search, past) == first
    assert history(search, 12)[-1].params == past[-1].params
    assert history(search.model_copy(update={"seed": 1}), 12)[-1].params != past[-1].params


def test_tpe_learns_from_the_past_and_random_does_not():
    for algorithm, same in (("tpe", False), ("random", True)):
        search = SearchSpec(space=SPACE, algorithm=algorithm, total=20, startup=4)
        past = history(search, 12)
        worse = [copy.copy(trial) for trial in past]
        for trial in worse[5:8]:
            trial.values = [2.0]
        assert (suggest(search, past).params == suggest(search, worse).params) == same


@pytest.mark.parametrize("algorithm", ["tpe", "random", "grid"])
@pytest.mark.parametrize("objective", ["val/ekld", ("val/balanced_accuracy", "val/ekld")])
def test_a_trial_has_the_fields_that_are_searched_in_it_and_no_others(algorithm, objective):
    search = SearchSpec(space=SPACE, algorithm=algorithm, total=40, startup=4, objective=objective)
    past = history(search, 40)
    for trial in past:
        ldam, instance = trial.params["loss"] == "ldam", trial.params["sampler"] == "instance"
        wanted = [
            "threshold",
            "fraction",
            "sampler",
            "loss",
            *["ldam_scale"] * ldam,
            *["ldam_margin"] * (ldam and instance),
        ]
        assert sorted(trial.params) == sorted(trial.distributions) == sorted(wanted)
        assert all(SPACE[name].contains(value) for name, value in trial.params.items())
    assert {len(trial.params) for trial in past} >= {4, 6}


def test_tpe_models_groups_of_conditional_fields_and_uses_a_constant_liar():
    conditional = build_sampler(SearchSpec(space=SPACE))
    plain = build_sampler(SearchSpec(space={"fraction": SPACE["fraction"]}))
    for sampler, group in ((conditional, True), (plain, False)):
        assert (sampler._multivariate, sampler._group, sampler._constant_liar) == (True, group, True)


def test_points_to_try_first_are_tried_first_and_completed_by_the_sampler():
    first = (
        {"threshold": 100, "fraction": 0.5, "sampler": "instance", "loss": "cross-entropy"},
        {"loss": "ldam", "ldam_scale": 20},
        {"ldam_margin": 0.25},
    )
    search = SearchSpec(space=SPACE, total=20, try_first=first, seed=2)
    past = history(search, 4)
    assert past[0].params == first[0]
    assert past[1].params.items() >= first[1].items() and set(past[1].params) > set(first[1])
    margin = past[2].params.get("ldam_margin")
    opened = past[2].params["loss"] == "ldam" and past[2].params["sampler"] == "instance"
    assert margin == (0.25 if opened else None)
    free = SearchSpec(space=SPACE, total=20, seed=2)
    assert past[3].params == suggest(free, past[:3]).params


def test_a_first_point_has_the_types_of_its_distribution():
    search = SearchSpec(space={"threshold": Dimension(float=(1, 9))}, try_first=({"threshold": 5},))
    value = suggest(search, []).params["threshold"]
    assert (value, type(value)) == (5.0, float)


@pytest.mark.parametrize("algorithm", ["random", "grid"])
def test_a_retry_does_not_use_up_a_point(algorithm):
    space = {"sampler": Dimension(choice=("instance", "class-balanced", "square-root"))}
    first = ({"sampler": "instance"}, {"sampler": "square-root"}, {"sampler": "class-balanced"})
    search = SearchSpec(space=space, algorithm=algorithm, try_first=first)
    past = [trial_of(search, [], state=TrialState.FAIL)]
    past.append(
        create_trial(params=past[0].params, distributions=past[0].distributions, value=1.0, user_attrs={RETRY_OF: 0})
    )
    for _ in range(2):
        past = numbered([*past, trial_of(search, past, value=1.0)])
    assert [trial.params for trial in past] == [first[0], *first]


def test_a_grid_has_each_point_once():
    space = {name: dimension for name, dimension in SPACE.items() if name != "threshold"}
    search = SearchSpec(space=space, algorithm="grid", total=1000)
    num_points = len(grid_points(space))
    points = {frozenset(trial.params.items()) for trial in history(search, num_points)}
    assert len(points) == num_points == 4 * (2 + 4 + 16)


@pytest.mark.parametrize("objective", ["val/ekld", ("val/balanced_accuracy", "val/ekld")])
def test_with_a_lag_the_last_outcomes_are_not_read(objective):
    search = SearchSpec(space=SPACE, total=40, startup=4, lag=3, objective=objective)
    past = history(search, 15)
    suggested = suggest(search, past)
    for trial in past[13:]:
        trial.state, trial.values, trial.datetime_complete = TrialState.RUNNING, None, None
    assert suggest(search, past) == suggested
    past[12].state, past[12].values = TrialState.FAIL, None
    assert suggest(search, past).params != suggested.params


def test_auto_is_gp_for_ranges_and_few_trials_else_tpe():
    ranges = {"fraction": SPACE["fraction"], "threshold": SPACE["threshold"]}
    cases = [
        ({"space": ranges}, optuna.samplers.GPSampler),
        ({"space": ranges, "total": 101}, optuna.samplers.TPESampler),
        ({"space": SPACE}, optuna.samplers.TPESampler),
    ]
    for fields, sampler in cases:
        assert type(build_sampler(SearchSpec(algorithm="auto", **fields))) is sampler


def test_options_override_the_settings_of_an_algorithm():
    tpe = build_sampler(SearchSpec(space=SPACE, options={"multivariate": False, "group": False, "seed": 3}))
    assert (tpe._multivariate, tpe._group, tpe._constant_liar) == (False, False, True)
    assert build_sampler(SearchSpec(algorithm="nsga2", options={"population_size": 6})).population_size == 6


class Sorted(optuna.samplers.BaseSampler):
    """A user's sampler: the values in order, from a start that is an option."""

    def __init__(self, start: int, step: int = 1) -> None:
        self.next, self.step = start, step

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        self.next += self.step
        return self.next


class Unpicklable(Sorted):
    def __reduce__(self):
        raise TypeError("no pickle")


class Broken(Sorted):
    def sample_independent(self, study, trial, param_name, param_distribution):
        return {}["missing"]


def no_sampler() -> str:
    return "tpe"


def search_by(name: str, **fields) -> SearchSpec:
    return SearchSpec(space={"threshold": SPACE["threshold"]}, algorithm=f"{__name__}:{name}", **fields)


def test_a_users_sampler_keeps_its_state():
    past = history(search_by("Sorted", options={"start": 20, "step": 3}), 5)
    assert [trial.params["threshold"] for trial in past] == [23, 26, 29, 32, 35]


@pytest.mark.parametrize(
    ("search", "error", "word"),
    [
        (search_by("Sorted"), SpecError, "start"),
        (search_by("Sorted", options={"first": 1}), SpecError, "first"),
        (search_by("Missing"), SpecError, "Missing"),
        (search_by("no_sampler"), SpecError, "str"),
        (SearchSpec(space=SPACE, options={"prior": 1}), SpecError, "prior"),
        (search_by("Unpicklable", options={"start": 20}), StudyError, "pickle"),
        (search_by("Broken", options={"start": 20}), StudyError, "KeyError"),
    ],
)
def test_a_sampler_that_does_not_work_is_one_line(search, error, word):
    with pytest.raises(error, match=word) as caught:
        suggest(search, [])
    assert "\n" not in str(caught.value) and search.algorithm in str(caught.value)


def test_options_of_a_wrong_type_are_refused_before_a_study_begins():
    with pytest.raises(StudyError, match="search.options"):
        check_sampler(SearchSpec(space=SPACE, options={"n_startup_trials": "two"}, try_first=[{}, {}, {}]))


@pytest.mark.parametrize("space", [{}, {"loss": Dimension(choice=("ldam", "focal"))}])
def test_a_sampler_of_another_package_may_have_fewer_points_than_it_is_tried_with(space):
    check_sampler(SearchSpec(space=space, algorithm="optuna.samplers:TPESampler"))


def test_a_sampler_of_another_version_of_optuna_is_one_line():
    search = SearchSpec(space=SPACE, total=20)
    past = history(search, 3)
    past[-1].system_attrs[SAMPLER] |= {"sampler": "", "optuna": "4.0"}
    with pytest.raises(StudyError, match="Optuna 4.0"):
        suggest(search, past)
