import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gitdist.errors import SpecError
from gitdist.spec import Dimension, SearchSpec, StudySpec
from gitdist.spec.dimension import dependency_order, max_grid_points
from gitdist.spec.file import dump_study, parse_study
from gitdist.study.ledger.space import distribution, grid_points, point_plan

CONDITIONAL = {
    "sampler": {"choice": ["instance", "effective-number", "class-balanced"]},
    "loss": {"choice": ["cross-entropy", "ldam"], "when": {"sampler": ["instance", "class-balanced"]}},
    "effective_beta": {"float": [0.9, 0.999], "when": {"sampler": "effective-number"}},
    "ldam_scale": {"int": [10, 30], "step": 5, "when": {"loss": "ldam"}},
}


def study(**search) -> StudySpec:
    return parse_study({"name": "a", "search": {"space": CONDITIONAL, **search}}, "study.yaml")


def test_one_value_of_a_condition_is_as_good_as_a_list():
    assert study().search.space["effective_beta"].when == {"sampler": ("effective-number",)}


def test_the_resolved_copy_of_every_new_field_means_the_same():
    spec = parse_study(
        {
            "name": "a",
            "ledger": "journal",
            "search": {
                "space": CONDITIONAL,
                "objective": ["val/balanced_accuracy", "val/ekld"],
                "try_first": [{"sampler": "instance", "loss": "ldam", "ldam_scale": 15}, {}],
                "lag": 3,
                "constraints": ["few_accuracy >= 0.5", "val/ekld<=2e-1"],
                "max_hours": 1.5,
                "patience": 9,
                "target": 0.9,
            },
        },
        "study.yaml",
    )
    assert parse_study(yaml.safe_load(dump_study(spec)), "copy") == spec


def test_fields_come_after_those_that_they_depend_on():
    space = {name: Dimension(**fields) for name, fields in reversed(CONDITIONAL.items())}
    order = dependency_order(space)
    assert sorted(order) == sorted(space)
    assert all(order.index(other) < order.index(name) for name in space for other in space[name].when)


@pytest.mark.parametrize(
    ("dimension", "inside", "outside"),
    [
        ({"int": [10, 30], "step": 5}, [10, 25, 30, 15.0], [9, 12, 31, 35, "10", True]),
        ({"int": [1, 100], "log": True}, [1, 7, 100], [0, 101, 7.5]),
        ({"float": [0.1, 0.9]}, [0.1, 0.5, 0.9], [0.09, 1, None, float("nan")]),
        ({"float": [0.1, 0.9], "step": 0.2}, [0.1, 0.3, 0.7, 0.9], [0.2, 1.1]),
        ({"choice": ["a", 1, None]}, ["a", 1, None], ["b", 2]),
    ],
)
def test_a_dimension_knows_its_values(dimension, inside, outside):
    dimension = Dimension(**dimension)
    assert [value for value in [*inside, *outside] if dimension.contains(value)] == inside


def test_objectives_are_one_or_several():
    assert SearchSpec().objectives == ("val/balanced_accuracy",)
    several = SearchSpec(objective=("val/balanced_accuracy", "ekld"))
    assert several.objectives == ("val/balanced_accuracy", "val/ekld")
    assert several.directions == ("maximize", "minimize")
    stated = SearchSpec(objective={"val/ekld": "maximize", "val/few_accuracy_se": "minimize"})
    assert stated.direction_by_objective == {"val/ekld": "maximize", "val/few_accuracy_se": "minimize"}


def test_every_way_to_name_an_objective_and_its_copy_mean_the_same():
    named, *others = (
        study(objective=each)
        for each in (
            "val/ekld",
            "ekld",
            ["val/ekld"],
            {"val/ekld": "minimize"},
            [{"metric": "ekld", "direction": "minimize"}],
        )
    )
    assert all(other == named for other in others)
    assert parse_study(yaml.safe_load(dump_study(named)), "copy") == named
    assert study(objective=["val/ekld", "val/consistency"]) != study(objective=["val/consistency", "val/ekld"])


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"objective": ["val/ekld", "val/few_acuracy"]}, ["did you mean 'few_accuracy'"]),
        ({"objective": ["val/ekld", "val/ekld"]}, ["search.objective", "only once"]),
        ({"objective": ["val/ekld", "ekld"]}, ["search.objective", "only once"]),
        ({"objective": {"val/ekld": "lower"}}, ["search.objective", "'maximize' or 'minimize'", "'lower'"]),
        ({"objective": {"val/loss": "minimize"}}, ["unknown metric 'loss'", "balanced_accuracy", "ekld"]),
        ({"objective": 3}, ["search.objective", "a metric, a list of metrics"]),
        ({"objective": [3]}, ["search.objective", "3"]),
        ({"objective": []}, ["search.objective", "at least one"]),
        ({"objective": ["val/ekld", "val/few_accuracy"], "pruner": {"kind": "median"}}, ["median", "one objective"]),
        ({"pruner": {"kind": "halving"}}, ["search.pruner.kind", "hyperband", "'halving'"]),
        ({"pruner": {"kind": "threshold"}}, ["search.pruner", "lower or upper"]),
        ({"pruner": {"kind": "patient", "wraps": "patient"}}, ["search.pruner", "another pruner"]),
        ({"pruner": {"kind": "patient", "wraps": "threshold"}}, ["search.pruner", "lower or upper"]),
        ({"warm_start": "s3://bucket/study"}, ["search.warm_start", "directory", "s3://bucket/study"]),
        ({"pruner": {"kind": ":attribute"}}, ["search.pruner.kind", "module:attribute"]),
        ({"algorithm": "tpes"}, ["search.algorithm", "did you mean 'tpe'"]),
        ({"algorithm": "cmaes:"}, ["search.algorithm", "module:attribute"]),
        ({"algorithm": "grid", "options": {"seed": 1}}, ["search.options", "grid"]),
        ({"constraints": ["few_acuracy >= 0.5"]}, ["search.constraints.0", "did you mean 'few_accuracy'"]),
        ({"constraints": ["few_accuracy > 0.5"]}, ["search.constraints.0", "METRIC >= NUMBER", "few_accuracy > 0.5"]),
        ({"constraints": ["ekld <= low"]}, ["search.constraints.0", "METRIC >= NUMBER", "ekld <= low"]),
        ({"constraints": ["ekld <= nan"]}, ["search.constraints.0", "METRIC >= NUMBER", "nan"]),
        ({"constraints": ["ekld <= 1e999"]}, ["search.constraints.0", "finite"]),
        ({"constraints": ["ekld <= -1"]}, ["search.constraints.0", "0", "-1"]),
        ({"constraints": ["few_accuracy >= 50"]}, ["search.constraints.0", "0..1", "50"]),
        ({"constraints": ["ekld <= 1", "val/ekld <= 2"]}, ["search.constraints", "one lower and one upper"]),
        ({"constraints": ["ekld <= 1", "ekld >= 2"]}, ["search.constraints", "both bounds on val/ekld"]),
        ({"target": 95}, ["search", "val/balanced_accuracy", "0..1", "95"]),
        ({"patience": 0}, ["search.patience", "1", "0"]),
        ({"max_hours": 0}, ["search.max_hours", "0"]),
        ({"pruner": {"kind": "hyperband", "reduction_factor": 1}}, ["search.pruner.reduction_factor", "2"]),
        ({"pruner": {"kind": "median", "min_epochs": 50}}, ["search.pruner.min_epochs", "below the 50 epochs", "50"]),
        ({"lag": 0}, ["search.lag", "1", "0"]),
        ({"space": {"fraction": {"float": [0, 1], "when": {"sampler": "instance"}}}}, ["fraction.when", "sampler"]),
        (
            {"space": {"flip": {"choice": [True, False]}, "lr": {"float": [0.1, 1], "when": {"flip": ["yes"]}}}},
            ["lr.when.flip", "[True, False]", "'yes'"],
        ),
        (
            {"space": {"epochs": {"int": [30, 50]}, "lr": {"float": [0.1, 1], "when": {"epochs": 30}}}},
            ["lr.when", "choice", "epochs"],
        ),
        (
            {
                "space": {
                    "flip": {"choice": [True, False], "when": {"loss": "ldam"}},
                    "loss": {"choice": ["ldam", "cross-entropy"], "when": {"flip": True}},
                    "lr": {"float": [0.1, 1]},
                }
            },
            ["cycle", "flip, loss"],
        ),
        ({"space": {"loss": {"choice": ["ldam", "ldam"]}}}, ["choices must differ"]),
        ({"space": {"lr": {"float": [0.1, float("inf")]}}}, ["search.space.lr.float.1", "finite"]),
        ({"space": {"batch_size": {"float": [8, 16]}}}, ["search.space.batch_size", "whole", "10.5"]),
        ({"space": {"epochs": {"float": [10, 20], "step": 0.5}}}, ["search.space.epochs", "whole", "10.5"]),
        ({"try_first": [{}, {"sampler": "instnce"}]}, ["try_first.1.sampler", "'instance'", "'instnce'"]),
        ({"try_first": [{"samplr": "instance"}]}, ["try_first.0", "did you mean 'sampler'"]),
        ({"try_first": [{"ldam_scale": 12}]}, ["try_first.0.ldam_scale", "[10, 30]", "steps", "12"]),
        ({"try_first": [{"loss": "ldam", "sampler": "effective-number"}]}, ["try_first.0.loss", "not searched"]),
        ({"try_first": [{}, {}], "total": 1}, ["try_first has 2 points", "total is 1"]),
    ],
)
def test_a_mistake_is_one_line_with_place_and_remedy(search, words):
    with pytest.raises(SpecError) as caught:
        study(**search)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def test_a_pruner_needs_trials_of_the_same_length():
    with pytest.raises(SpecError, match="same epoch, but switch_epoch is searched"):
        study(pruner={"kind": "median"}, space={"switch_epoch": {"int": [1, 9]}})


def test_a_point_to_try_first_must_be_a_valid_trial_as_a_whole():
    space = {"epochs": {"int": [40, 60]}, "switch_epoch": {"int": [0, 50]}}
    assert study(space=space, try_first=[{"epochs": 60, "switch_epoch": 50}]).search.try_first
    with pytest.raises(SpecError, match=r"try_first\.0: trial: switch_epoch must not lie beyond epochs, but 50 > 45"):
        study(space=space, try_first=[{"epochs": 45, "switch_epoch": 50}])


@pytest.mark.parametrize(
    "line", ["sqlite", "journal", "postgresql://me@host:5432/db", "postgresql+psycopg://host/db?sslmode=require"]
)
def test_the_ledgers_place_is_known(line):
    assert parse_study({"name": "a", "ledger": line}, "study.yaml").ledger == line


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("postgres", ["ledger", "sqlite, journal or postgresql://", "'postgres'"]),
        ("mysql://host/db", ["postgresql://", "'mysql://host/db'"]),
        ("postgresql://host", ["postgresql://", "'postgresql://host'"]),
        ("postgresql://me:secret@host/db", ["PGPASSWORD", "~/.pgpass"]),
        ("postgresql://host/db?password=secret", ["PGPASSWORD", "~/.pgpass"]),
        ("postgresql://[host/db", ["ledger", "must be an address", "'postgresql://[host/db'"]),
    ],
)
def test_a_wrong_place_or_a_password_in_it_is_refused(line, words):
    with pytest.raises(SpecError) as caught:
        parse_study({"name": "a", "ledger": line}, "study.yaml")
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "secret" not in message and "\n" not in message


def methods(named, **parts) -> StudySpec:
    return parse_study({"name": "a", "methods": named, **parts}, "study.yaml")


def test_methods_are_the_first_dimension_and_others_may_depend_on_them():
    threshold = {"choice": [10, 100], "when": {"method": "GIT"}}
    spec = methods({"ERM": {"fraction": 0}, "GIT": {}}, search={"space": {"threshold": threshold}})
    assert list(spec.search.space) == ["method", "threshold"]
    assert spec.search.space["method"].choice == ("ERM", "GIT")
    assert parse_study(yaml.safe_load(dump_study(spec)), "copy") == spec


@pytest.mark.parametrize(
    ("named", "parts", "message"),
    [
        ({"ERM": {"smapler": "instance"}}, {}, r"methods.ERM: unknown trial field 'smapler'; did you mean 'sampler'\?"),
        ({"ERM": {"fraction": 2}}, {}, r"methods.ERM: trial.fraction must be .* 1, but the trial has fraction 2"),
        (
            {"ERM": {}},
            {"search": {"space": {"method": {"choice": ["ERN"]}}}},
            r"search.space.method: unknown method 'ERN'; did you mean 'ERM'\?",
        ),
        ({}, {"search": {"space": {"method": {"choice": ["ERM"]}}}}, "unknown method 'ERM': there is none; remove it"),
        ({"a": {}}, {"search": {"total": 0}}, "search.total 0 means no trials, so it requires baseline: false"),
        ({"a": {"epochs": 9}}, {"search": {"pruner": {"kind": "median"}}}, "search.pruner compares trials at the same"),
    ],
)
def test_a_wrong_method_is_named(named, parts, message):
    with pytest.raises(SpecError, match=message):
        methods(named, **parts)


SPACES = st.dictionaries(
    st.sampled_from(["lr", "weight_decay", "seed", "batch_size", "fraction"]),
    st.builds(
        lambda low, width, step, points, log, whole, when: Dimension(
            **{"int" if whole else "float": (low, low + width), "log": log and step is None, "points": points},
            step=step if step is None else min(step, width),
            when={"flip": [True]} if when else {},
        ),
        st.integers(1, 50),
        st.integers(1, 40),
        st.none() | st.integers(1, 9),
        st.integers(1, 9),
        st.booleans(),
        st.booleans(),
        st.booleans(),
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(SPACES, st.booleans())
def test_a_grid_is_counted_as_it_is_built(space, has_flip):
    choices = {"flip": Dimension(choice=(True, False))}
    built = grid_points({**choices, **space})
    counted = max_grid_points({**choices, **space}, 10**9)
    rounded = any(dimension.log and dimension.int_ for dimension in space.values())
    assert counted == len(built) or (rounded and counted > len(built))
    assert max_grid_points({**choices, **space}, 10) > 10 or counted <= 10


def test_a_large_space_is_counted_and_not_built():
    whole = {"int": [1, 1_000_000_000], "step": 1}
    spec = study(space={"threshold": whole, "seed": {"int": [0, 2**62]}}, total=5)
    assert point_plan(spec.search) is None
    assert distribution(spec.search.space["threshold"]).high == 1_000_000_000
    with pytest.raises(SpecError, match="100,000 points"):
        study(space={"threshold": whole}, algorithm="grid")
    axes = {name: {"float": [0.1, 0.9], "points": 100} for name in ("lr", "fraction", "momentum", "lr_decay")}
    with pytest.raises(SpecError, match="100,000 points"):
        study(space=axes, algorithm="grid")
