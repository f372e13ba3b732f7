import pytest

from gitdist.errors import SpecError
from gitdist.spec.confirmation import SOURCES, Selected, check_varied, plan_confirmation
from gitdist.spec.file import parse_study

FIELDS = {"threshold": 30, "fraction": 0.4, "sampler": "square-root", "seed": 2}


def selected(seeds=(0, 2), **values) -> Selected:
    search = {
        "space": {"threshold": {"int": [10, 100]}},
        "pruner": {"kind": "median"},
        "constraints": ["val/ekld <= 1"],
    }
    spec = parse_study({"name": "s", "search": search, "generator": {"kind": "munit", "seed": 7}, **values}, "test")
    return Selected(spec=spec, trial=4, fields=FIELDS, seeds=frozenset(seeds))


def plan(chosen: Selected, number: int, *varied: str, earlier=None):
    return plan_confirmation(chosen, number, list(varied), chosen.default_name(list(varied)), earlier)


def points(campaign) -> list[tuple]:
    """Method and training seed of every trial."""
    found = []
    for member in campaign.members:
        space = member.spec.search.space
        seeds = space["seed"].extremes if "seed" in space else [member.spec.trial.seed]
        found += [(method, seed) for method in space["method"].extremes for seed in seeds]
        assert member.spec.search.total == len(space["method"].extremes) * len(seeds)
    return found


def test_the_setting_and_the_baseline_are_trained_in_pairs_on_seeds_that_the_study_has_not_used():
    campaign = plan(selected(), 3, "training")
    (member,) = campaign.members
    assert campaign.name == "s.confirm-trial4" and member.spec.name == "s.confirm-trial4.seed1-4"
    assert sorted(points(campaign)) == [(name, seed) for name in ("baseline", "trial 4") for seed in (1, 3, 4)]
    setting = {name: value for name, value in FIELDS.items() if name != "seed"}
    assert member.spec.methods == {"baseline": {"fraction": 0.0}, "trial 4": setting}


def test_only_what_the_search_did_is_left_out():
    spec, found = selected().spec, plan(selected(), 2, "training").members[0].spec
    assert (found.search.pruner.kind, found.search.constraints, found.search.algorithm) == ("none", (), "grid")
    assert (found.search.objective, found.search.seed) == (spec.search.objective, spec.search.seed)
    assert not found.baseline and found.evaluation.test == "all" and not found.tracking.models
    for part in ("data", "generator", "stream", "trial", "resources", "store", "sharing"):
        assert getattr(found, part) == getattr(spec, part)


def test_each_varied_source_gets_new_values_in_each_pair():
    campaign = plan(selected(), 3, *SOURCES)
    specs = [member.spec for member in campaign.members]
    assert [(each.trial.seed, each.generator.seed, each.stream.seed, each.data.version) for each in specs] == [
        (1, 8, 1, 1),
        (3, 9, 2, 2),
        (4, 10, 3, 3),
    ]
    assert campaign.name == "s.confirm-trial4-all" and plan(selected(), 2, "data").name == "s.confirm-trial4-data"
    assert [each.trial.seed for each in (member.spec for member in plan(selected(), 2, "data").members)] == [0, 0]


@pytest.mark.parametrize("varied", [("training",), ("generator", "data")])
def test_more_seeds_add_pairs_to_those_that_are_there_and_fewer_remove_none(varied):
    first = plan(selected(), 3, *varied)
    more = plan(selected(), 5, *varied, earlier=first)
    assert more.members[: len(first.members)] == first.members
    assert len(points(more)) == 10 and len(set(points(more))) == (10 if varied == ("training",) else 2)
    assert plan(selected(), 2, *varied, earlier=more).members == more.members


def test_a_name_that_is_taken_by_other_trainings_is_refused():
    other = plan(selected(), 2, "data")
    with pytest.raises(SpecError, match="needs another name"):
        plan(selected(), 2, "training", earlier=other)


@pytest.mark.parametrize("names", [["seeds"], [""], ["training", "x"]])
def test_what_varies_is_one_of_the_three_sources(names):
    with pytest.raises(SpecError, match="training, generator, data"):
        check_varied(selected().spec, names)


def test_only_a_generator_that_the_study_trains_can_vary():
    spec = selected(generator={"kind": "identity"}).spec
    assert check_varied(spec, ["data", "training"]) == ["training", "data"]
    with pytest.raises(SpecError, match="identity"):
        check_varied(spec, ["generator"])
