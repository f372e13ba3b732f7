from pathlib import Path

import pytest
import yaml

from gitdist.errors import SpecError
from gitdist.spec import StudySpec
from gitdist.spec.campaign import Campaign
from gitdist.spec.file import load_plan, load_study, override_plan, parse_plan

STUDIES = Path(__file__).parents[2] / "studies"
FILE = {
    "name": "figure",
    "title": "A figure",
    "data": {"nuisance": "background", "profile": {"kind": "zipf", "largest": 100}},
    "generator": {"kind": "munit", "dim": 8},
    "methods": {"CE": {"fraction": 0.0}, "GIT": {}},
    "matrix": {
        "data.nuisance": ["rotation", "background"],
        "draws": {"learned": {}, "true": {"generator": {"kind": "oracle"}, "methods": {"oracle": {}}}},
        "data.version": [0, 3],
    },
    "scale": {
        "small": {"trial.epochs": 6, "data.profile.largest": 50},
        "paper": {"generator.dim": 64, "matrix": {"data.version": [0, 1, 2]}},
    },
}


def write(tmp_path, **changes):
    file = tmp_path / "figure.yaml"
    file.write_text(yaml.safe_dump({**FILE, **changes}, sort_keys=False))
    return file


def expanded(tmp_path, *overrides: str) -> Campaign:
    plan = load_plan(write(tmp_path), overrides)
    assert isinstance(plan, Campaign)
    return plan


def test_a_matrix_makes_a_study_of_every_combination(tmp_path):
    plan = expanded(tmp_path)
    assert (plan.name, plan.title) == ("figure-small", "A figure")
    assert len(plan.members) == 8
    first, last = plan.members[0], plan.members[-1]
    assert first.labels == {"data.nuisance": "rotation", "draws": "learned", "data.version": 0}
    assert first.spec.name == "figure-small.rotation.learned.version0"
    assert (first.spec.data.nuisance, first.spec.data.version, first.spec.generator.kind) == ("rotation", 0, "munit")
    assert last.labels == {"data.nuisance": "background", "draws": "true", "data.version": 3}
    assert (last.spec.generator.kind, list(last.spec.methods)) == ("oracle", ["oracle"])
    assert last.spec.search.space["method"].choice == ("oracle",)
    assert {member.spec.data.profile.largest for member in plan.members} == {50}
    assert {member.spec.data.profile.kind for member in plan.members} == {"zipf"}


def test_a_scale_is_chosen_by_name_and_overrides_come_after_it(tmp_path):
    file = write(tmp_path, matrix=None)
    small, paper = load_study(file), load_study(file, ["matrix=null", "generator.dim=16"], "paper")
    assert (small.name, small.trial.epochs, small.data.profile.largest) == ("figure-small", 6, 50)
    assert (paper.name, paper.trial.epochs, paper.data.profile.largest) == ("figure-paper", 50, 100)
    assert paper.generator.dim == 16
    large = load_plan(write(tmp_path), (), "paper")
    assert isinstance(large, Campaign)
    assert [member.spec.name for member in large.members] == [f"figure-paper.version{n}" for n in range(3)]


def test_overrides_reach_every_study_and_the_noted_file_gives_the_same(tmp_path):
    plan = expanded(tmp_path)
    changed = override_plan(plan, ["resources.trial.cpu=2"])
    assert isinstance(changed, Campaign)
    assert [member.spec.resources.trial.cpu for member in changed.members] == [2.0] * 8
    assert (
        parse_plan(yaml.safe_load(yaml.safe_dump(dict(plan.values), sort_keys=False)), "copy").members == plan.members
    )
    single = load_study(write(tmp_path, matrix=None))
    assert override_plan(single, []) is single
    assert isinstance(override_plan(single, ["trial.epochs=8"]), StudySpec)


def test_axes_that_end_alike_have_their_whole_names(tmp_path):
    kinds = {"data.profile.kind": ["zipf", "exponential"], "generator.kind": ["munit"]}
    seeds = {"generator.seed": [0, 1], "stream.seed": [2]}
    plan = load_plan(write(tmp_path, matrix=kinds | seeds))
    assert isinstance(plan, Campaign)
    assert [member.spec.name for member in plan.members] == [
        "figure-small.zipf.munit.generator-seed0.stream-seed2",
        "figure-small.zipf.munit.generator-seed1.stream-seed2",
        "figure-small.exponential.munit.generator-seed0.stream-seed2",
        "figure-small.exponential.munit.generator-seed1.stream-seed2",
    ]
    assert list(plan.members[0].labels) == list(kinds | seeds)


@pytest.mark.parametrize(
    ("overrides", "scale"),
    [
        (["data.nuisance=rotation"], {"small": {"data.profile.largest": 50}}),
        ([], {"small": {"data.nuisance": "rotation"}}),
        (["matrix={data.nuisance: [rotation, background], data.version: [0, 3]}", "data.nuisance=rotation"], None),
    ],
)
def test_a_field_that_is_set_is_not_varied_and_the_studies_keep_their_names(tmp_path, overrides, scale):
    matrix = {"data.nuisance": ["rotation", "background"], "data.version": [0, 3]}
    whole = load_plan(write(tmp_path, matrix=matrix, scale={"small": {}} if scale else None))
    cut = load_plan(write(tmp_path, matrix=matrix, scale=scale), overrides)
    assert isinstance(whole, Campaign) and isinstance(cut, Campaign)
    assert [member.spec.name for member in cut.members] == [member.spec.name for member in whole.members][:2]
    assert {member.spec.data.nuisance for member in cut.members} == {"rotation"}
    noted = parse_plan(dict(cut.values), "copy")
    assert isinstance(noted, Campaign) and noted.members == cut.members


def test_one_label_of_an_axis_can_be_chosen(tmp_path):
    file = write(
        tmp_path, matrix={"draws": {"learned": {}, "oracle": {"generator": {"kind": "oracle"}}}, "data.version": [0, 3]}
    )
    cut = load_plan(file, ["draws=oracle"])
    assert isinstance(cut, Campaign)
    assert [member.labels for member in cut.members] == [{"draws": "oracle", "data.version": at} for at in (0, 3)]
    assert {member.spec.generator.kind for member in cut.members} == {"oracle"}
    for wrong in ("identity", "{oracle: {}}"):
        with pytest.raises(SpecError, match="override draws: matrix.draws has no '.*'; choose one of learned, oracle"):
            load_plan(file, [f"draws={wrong}"])


def test_a_field_can_be_set_before_and_after_its_matrix_is_taken_away(tmp_path):
    for overrides in (["matrix=null", "data.nuisance=rotation"], ["data.nuisance=rotation", "matrix=null"]):
        assert load_study(write(tmp_path), overrides).data.nuisance == "rotation"


@pytest.mark.parametrize(
    ("changes", "scale", "message"),
    [
        ({"matrix": []}, None, "matrix must map fields to lists of values"),
        ({"matrix": {"data.version": []}}, None, "matrix.data.version must be a list of values, or map labels"),
        ({"matrix": {"draws": {"a": 3}}}, None, "matrix.draws must be a list of values, or map labels"),
        ({"matrix": {"data": [{"version": 1}]}}, None, "matrix.data must list plain values, but it has"),
        ({"matrix": {"data.version": [1, 1]}}, None, "must have different names, but two are 'figure-small.version1'"),
        ({"matrix": {"data.version": [-1]}}, None, r"figure-small.version-1: data.version: must be greater"),
        ({"matrix": {"data.vresion": [1]}}, None, "unknown field 'vresion'; did you mean 'version'"),
        ({}, "papre", "unknown scale 'papre'; did you mean 'paper'"),
        ({"scale": None}, "paper", "it has no scales"),
        ({"scale": ["small"]}, None, "scale must map names to changes"),
        ({"name": None}, None, "name is required"),
        ({"name": 5, "scale": None}, None, "name must be text, but it is 5"),
        ({"scale": {1: {}}}, None, "a scale's name must be text, but one is 1; quote it"),
        ({"scale": {"a": {}, True: {}}}, "on", "a scale's name must be text, but one is True; quote it"),
        ({"matrix": {"draws": {"x": {1: 2}}}}, None, "unknown field '1'"),
        (
            {"matrix": {"draws": {"x": {"title.a": 2}}}},
            None,
            "matrix.draws: title must be a mapping because title.a is set",
        ),
        (
            {"data": "digits"},
            None,
            "scale.small: data must be a mapping because data.profile.largest is set.* 'digits'",
        ),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, changes, scale, message):
    with pytest.raises(SpecError, match=message):
        load_plan(write(tmp_path, **changes), (), scale)


def test_a_command_for_one_study_refuses_a_matrix_and_says_how_to_take_one(tmp_path):
    with pytest.raises(SpecError, match=r"the matrix makes 8; override matrix=null, name=NAME") as caught:
        load_study(write(tmp_path))
    assert "\n" not in str(caught.value)
    assert load_study(write(tmp_path), ["matrix=null", "name=one", "data.version=3"]).data.version == 3


def test_the_method_table_crops_and_flips_no_traffic_signs():
    plan = load_plan(STUDIES / "table_methods.yaml", (), "paper")
    assert isinstance(plan, Campaign)
    specs = [member.spec for member in plan.members]
    placed = {spec.data.source: (spec.trial.crop_padding, spec.trial.flip) for spec in specs}
    assert placed == {"cifar-10": (4, True), "cifar-100": (4, True), "gtsrb": (0, False)}
