import random
from typing import get_args

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from gitdist.spec import Dimension, SearchSpec
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.records import RETRY_OF
from gitdist.study.ledger.space import grid_points
from gitdist.study.ledger.suggestion import ALGORITHMS, Algorithm, suggest

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


def trial_of(search: SearchSpec, past: list[FrozenTrial], **fields) -> FrozenTrial:
    params, distributions = suggest(search, past, len(past))
    return create_trial(params=params, distributions=distributions, **fields)


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
    first = suggest(search, past, 12)
    suggest(search, past[:5], 5)
    assert suggest(search, past, 12) == first
    assert suggest(search.model_copy(update={"seed": 1}), past, 12) != first


def test_tpe_learns_from_the_past_and_random_does_not():
    for algorithm, same in (("tpe", False), ("random", True)):
        search = SearchSpec(space=SPACE, algorithm=algorithm, total=20, startup=4)
        past = history(search, 12)
        worse = numbered([*past[:-3], *history(search.model_copy(update={"seed": 5}), 3)])
        assert (suggest(search, past, 12) == suggest(search, worse, 12)) == same


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
    build = ALGORITHMS["tpe"].build_sampler
    conditional = build(SearchSpec(space=SPACE), 0)
    plain = build(SearchSpec(space={"fraction": SPACE["fraction"]}), 0)
    for sampler, group in ((conditional, True), (plain, False)):
        assert (sampler._multivariate, sampler._group, sampler._constant_liar) == (True, group, True)


def test_a_running_trial_keeps_others_away_from_its_point():
    search = SearchSpec(space={"fraction": SPACE["fraction"]}, total=40, startup=4)
    past = history(search, 12)
    params, distributions = suggest(search, past, 12)
    beside = create_trial(state=TrialState.RUNNING, params=params, distributions=distributions)
    others = [*past[:-1], beside]
    assert suggest(search, numbered(others), 12)[0] != params


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
    assert past[3].params == suggest(free, past[:3], 3)[0]


def test_a_first_point_has_the_types_of_its_distribution():
    search = SearchSpec(space={"threshold": Dimension(float=(1, 9))}, try_first=({"threshold": 5},))
    value = suggest(search, [], 0)[0]["threshold"]
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
    search = SearchSpec(space=SPACE, algorithm="grid", total=1000)
    num_points = len(grid_points(SPACE))
    points = {frozenset(trial.params.items()) for trial in history(search, num_points)}
    assert len(points) == num_points == 4 * 4 * (2 + 4 + 16)


@pytest.mark.parametrize("objective", ["val/ekld", ("val/balanced_accuracy", "val/ekld")])
def test_with_a_lag_the_last_outcomes_are_not_read(objective):
    search = SearchSpec(space=SPACE, total=40, startup=4, lag=3, objective=objective)
    past = history(search, 15)
    suggested = suggest(search, past, 15)
    for trial in past[13:]:
        trial.state, trial.values, trial.datetime_complete = TrialState.RUNNING, None, None
    assert suggest(search, past, 15) == suggested
    past[12].state, past[12].values = TrialState.FAIL, None
    assert suggest(search, past, 15) != suggested


def test_the_table_has_the_algorithms_of_the_spec_and_an_unknown_name_raises():
    assert set(ALGORITHMS) == set(get_args(SearchSpec.model_fields["algorithm"].annotation))
    with pytest.raises(KeyError, match="gp"):
        suggest(SearchSpec(space=SPACE).model_copy(update={"algorithm": "gp"}), [], 0)


def test_an_algorithm_is_added_by_an_entry_of_the_table(monkeypatch):
    def build(search: SearchSpec, seed: int) -> optuna.samplers.TPESampler:
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.startup_trials)

    monkeypatch.setitem(ALGORITHMS, "univariate-tpe", Algorithm(build, reads_past=True))
    search = SearchSpec(space=SPACE, total=12, startup=4).model_copy(update={"algorithm": "univariate-tpe"})
    ledger = Ledger(optuna.storages.InMemoryStorage(), "study", search)
    while (record := ledger.next_trial()) is not None:
        ledger.finish(record.number, {"val/balanced_accuracy": record.params["fraction"]})
    found = [dict(record.params) for record in ledger.trials()]
    assert len(found) == 12
    past = numbered(
        [
            create_trial(params=trial.params, distributions=trial.distributions, value=trial.value)
            for trial in optuna.load_study(storage=ledger.storage, study_name="study").trials[:11]
        ]
    )
    assert suggest(search, past, 11)[0] == found[11]  # the sampler has read the trials before
    assert suggest(search.model_copy(update={"algorithm": "random"}), past, 11)[0] != found[11]
