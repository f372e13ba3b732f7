"""The trials of another study that a search starts with."""

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from gitdist.spec import Dimension, SearchSpec
from gitdist.study.ledger.ledger import Ledger
from gitdist.study.ledger.observations import OBSERVATIONS, describe_disagreement, observe, read_observations

SPACE = {
    "fraction": Dimension(float=(0.1, 0.9)),
    "sampler": Dimension(choice=("instance", "class-balanced")),
}
SEARCH = SearchSpec(space=SPACE, total=12, startup=2, seed=5)
ACCURACY, EKLD = "val/balanced_accuracy", "val/ekld"


def value(params) -> float:
    return -((params["fraction"] - 0.7) ** 2) + 0.1 * (params["sampler"] == "instance")


def ended_trials(search: SearchSpec) -> list[FrozenTrial]:
    """Four trials of a search, the first failed, the second pruned."""
    ledger = Ledger(InMemoryStorage(), "other", search.model_copy(update={"total": 4}))
    for _ in range(4):
        record = ledger.next_trial()
        if record.number == 0:
            ledger.fail(0, "for the test")
        else:
            ledger.finish(record.number, {ACCURACY: value(record.params), EKLD: 0.5})
    trials = ledger.optuna_study.get_trials()
    trials[1].state, trials[1].intermediate_values = TrialState.PRUNED, {1: 0.25, 2: trials[1].values[0]}
    return trials


def test_the_points_are_those_of_a_plain_loop_that_starts_with_the_trials():
    observations = observe(SEARCH, SEARCH, ended_trials(SEARCH))
    ledger = Ledger(InMemoryStorage(), "study", SEARCH)
    ledger.set_attr(OBSERVATIONS, {"study": "other", "trials": observations})
    plain = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=5, n_startup_trials=2, multivariate=True, constant_liar=True),
    )
    plain.add_trials(read_observations(SEARCH, observations))
    for number in range(12):
        if number in (4, 8):  # another driver resumes the search
            ledger = Ledger(ledger.storage, "study", SEARCH)
        record = ledger.next_trial()
        ledger.finish(record.number, {ACCURACY: value(record.params)})
        trial = plain.ask()
        trial.suggest_float("fraction", 0.1, 0.9)
        trial.suggest_categorical("sampler", ["instance", "class-balanced"])
        plain.tell(trial, value(trial.params))
        assert record.params == trial.params
    assert ledger.next_trial() is None


def test_ended_trials_inside_the_space_are_taken():
    trials = ended_trials(SEARCH)
    taken = observe(SEARCH, SEARCH, trials)
    assert [each["params"] for each in taken] == [trial.params for trial in trials[1:]]
    assert [each["state"] for each in taken] == ["PRUNED", "COMPLETE", "COMPLETE"]
    assert read_observations(SEARCH, taken)[0].intermediate_values == trials[1].intermediate_values
    highest = max(trial.params["fraction"] for trial in trials[1:])
    narrow = SearchSpec(space=SPACE | {"fraction": Dimension(float=(0.1, highest - 0.01))})
    assert len(observe(narrow, SEARCH, trials)) == 2


def test_constraints_are_taken_where_both_have_them():
    bound = SEARCH.model_validate({**SEARCH.model_dump(by_alias=True), "constraints": ["ekld <= 0.4"]})
    trials = ended_trials(bound)
    assert [list(each["constraints"].values()) for each in observe(bound, bound, trials)] == [[pytest.approx(0.1)]] * 3
    assert [each["constraints"] for each in observe(SEARCH, bound, trials)] == [{}] * 3
    assert describe_disagreement(SEARCH, bound) is None
    assert "constraints" in describe_disagreement(bound, SEARCH)


def test_one_of_several_objectives_is_taken():
    other = SearchSpec(space=SPACE, objective=(EKLD, ACCURACY))
    taken = observe(SEARCH, other, ended_trials(other)[2:])
    assert [each["values"] for each in taken] == [[pytest.approx(value(each["params"]))] for each in taken]


def test_replicates_are_taken_as_the_means_of_their_points():
    other = SEARCH.model_copy(update={"total": 2, "replicates": 2})
    ledger = Ledger(InMemoryStorage(), "other", other, seeds=(0, 1))
    for accuracy in (0.1, 0.3, 0.5, 0.7):
        ledger.finish(ledger.next_trial().number, {ACCURACY: accuracy})
    taken = observe(SEARCH, other, ledger.merged_trials())
    assert [each["values"] for each in taken] == [[pytest.approx(0.2)], [pytest.approx(0.6)]]
    assert [set(each["params"]) for each in taken] == [set(SPACE)] * 2


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({"objective": EKLD}, ACCURACY),
        ({"space": {"fraction": SPACE["fraction"]}}, "sampler"),
        ({"space": {**SPACE, "threshold": Dimension(int=(1, 9))}}, "threshold"),
        ({"space": {**SPACE, "sampler": Dimension(choice=("instance",))}}, "sampler"),
        ({"space": {**SPACE, "fraction": Dimension(choice=(0.1, 0.9))}}, "fraction"),
        ({"space": {**SPACE, "fraction": Dimension(float=(0, 1))}}, None),
    ],
)
def test_searches_that_do_not_agree_are_told_apart(other, word):
    problem = describe_disagreement(SEARCH, SearchSpec(**{"space": SPACE, **other}))
    assert (problem is None) == (word is None)
    assert word is None or word in problem
