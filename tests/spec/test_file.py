import math
import os
from pathlib import Path

import pytest
import yaml

from gitdist.errors import SpecError
from gitdist.spec import StudySpec, TrialSpec
from gitdist.spec.campaign import Campaign, Member
from gitdist.spec.file import dump_study, load_plan, load_study, parse_study
from gitdist.study.ledger.space import num_omitted_points
from tests.fuzz.commands import INTERNALS

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


def write(directory: Path, **fields) -> Path:
    path = directory / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "a", **fields}))
    return path


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_is_valid_at_every_scale_and_its_resolved_copy_means_the_same(path):
    for scale in yaml.safe_load(path.read_text()).get("scale") or [None]:
        plan = load_plan(path, (), scale)
        specs = [member.spec for member in plan.members] if isinstance(plan, Campaign) else [plan]
        for spec in specs:
            assert parse_study(yaml.safe_load(dump_study(spec)), "copy") == spec
            assert num_omitted_points(spec.search) == 0


PAPER = [path for path in STUDIES if "paper" in (yaml.safe_load(path.read_text()).get("scale") or {})]


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_at_the_papers_scale_a_generator_is_the_published_one(path):
    plan = load_plan(path, (), "paper")
    members = plan.members if isinstance(plan, Campaign) else [Member(labels={}, spec=plan)]
    generators = [(member.labels, member.spec.generator) for member in members]
    learned = [(labels, generator.auto_encoders) for labels, generator in generators if generator.kind == "munit"]
    assert all(number == labels.get("auto_encoders", "two") for labels, number in learned)
    assert learned or path.stem == "figure1_invariance"


def test_the_resolved_copy_shows_every_default(tmp_path):
    resolved = yaml.safe_load(dump_study(load_study(write(tmp_path))))
    assert set(resolved) == set(StudySpec.model_fields)
    assert set(resolved["trial"]) == set(TrialSpec.model_fields)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("tracking.uri=http://ann:hunter2@host:5000", ["http://ann:***@host:5000", "MLFLOW_TRACKING_PASSWORD"]),
        ("store.uri=s3://KEY:hunter2@bucket/prefix", ["s3://KEY:***@bucket/prefix", "AWS_ACCESS_KEY_ID"]),
        ("store.uri=abfs://box@host/a?sas_token=hunter2", ["abfs://box@host/a?sas_token=***", "environment"]),
        ("tracking.uri='http://[host'", ["must be an address", "'http://[host'"]),
    ],
)
def test_an_address_with_a_secret_or_none_at_all_is_refused(tmp_path, override, words):
    with pytest.raises(SpecError) as caught:
        load_study(write(tmp_path), [override])
    message = str(caught.value)
    assert all(word in message for word in [override.partition("=")[0], *words]), message
    assert "hunter2" not in message and "\n" not in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["tracking.register=a/b"],
        ["tracking.register='  '"],
        ["tracking={register: best, models: false}"],
        ["tracking.register=best", "search.objective=[val/ekld, val/balanced_accuracy]"],
    ],
)
def test_a_registered_model_needs_a_name_and_a_best_trial(tmp_path, overrides):
    with pytest.raises(SpecError, match=r"tracking\.register"):
        load_study(write(tmp_path), overrides)


def test_an_override_sets_a_nested_field_and_leaves_its_siblings(tmp_path):
    path = write(tmp_path, trial={"epochs": 7, "fraction": 0.2})
    spec = load_study(path, ["trial.fraction=0.9", "search.space.threshold={int: [1, 9]}"])
    assert (spec.trial.fraction, spec.trial.epochs) == (0.9, 7)
    assert spec.search.space["threshold"].int_ == (1, 9)


@pytest.mark.parametrize("data", [{"profile": {"kind": "zipf"}}, {"nuisance": "rotation"}])
def test_a_version_goes_with_a_zipf_profile_or_a_nuisance(tmp_path, data):
    assert load_study(write(tmp_path, data={**data, "version": 3})).data.version == 3


@pytest.mark.parametrize("nuisance", ["rotation", "background", "dilation-erosion"])
def test_the_papers_oracle_is_a_method_beside_others_where_the_nuisance_is_known(tmp_path, nuisance):
    methods = {"ERM": {"sampler": "instance", "fraction": 0}, "GIT": {}}
    methods["oracle"] = {"sampler": "instance", "fraction": 0, "true_nuisance": True}
    spec = load_study(write(tmp_path, data={"nuisance": nuisance}, methods=methods))
    trials = {name: spec.trial_of({"method": name}) for name in methods}
    assert [trial.true_nuisance for trial in trials.values()] == [False, False, True]
    assert trials["oracle"] == trials["ERM"].model_copy(update={"true_nuisance": True})


def test_milestones_that_are_not_given_follow_the_epochs(tmp_path):
    assert load_study(write(tmp_path, trial={"epochs": 20})).trial.lr_milestones == (12, 16)


def test_the_studys_seed_reaches_the_parts_without_their_own(tmp_path):
    spec = load_study(write(tmp_path, seed=5, trial={"seed": 7}))
    assert (spec.stream.seed, spec.search.seed, spec.evaluation.seed, spec.trial.seed) == (5, 5, 5, 7)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trail.epochs=3", ["'trail'", "did you mean 'trial'"]),
        ("trial.fractoin=0.5", ["trial", "did you mean 'fraction'"]),
        ("trial.fraction=1.5", ["trial.fraction", "less than or equal to 1", "1.5"]),
        ("trial.fraction=-0.1", ["trial.fraction", "greater than or equal to 0", "-0.1"]),
        ("data.source=imagnet", ["data.source", "'digits'", "'imagnet'"]),
        ("generator={kind: munit, step: 3}", ["generator", "did you mean 'steps'"]),
        ("generator={kind: oracle}", ["oracle", "data.nuisance"]),
        ("trial={true_nuisance: true}", ["trial.true_nuisance", "data.nuisance is 'none'", "true_nuisance to false"]),
        ("methods={oracle: {true_nuisance: true}}", ["methods.oracle: trial.true_nuisance", "is 'none'"]),
        ("search.space={true_nuisance: {choice: [false, true]}}", ["search.space.true_nuisance: ", "is 'none'"]),
        ("generator={kind: randaugment, magnitude: 31}", ["override generator.magnitude: must be less than", "31"]),
        ("generator={kind: pretrained}", ["override generator.path: is required"]),
        ("generator={kind: plugin, target: a:b, options: {x: .nan}}", ["override generator.options.x:", "finite"]),
        ("search.space={thresold: {int: [1, 5]}}", ["did you mean 'threshold'"]),
        ("search.space={fraction: {float: [0.1, 1.9]}}", ["search.space.fraction", "1.9"]),
        ("search.space={fraction: {float: [0.9, 0.1]}}", ["search.space.fraction", "lower bound"]),
        ("search.space={fraction: {flaot: [0.1, 0.9]}}", ["did you mean 'float'"]),
        ("search.objective=val/balanced_acuracy", ["did you mean 'balanced_accuracy'"]),
        ("trial.switch_epoch=99", ["trial", "switch_epoch", "99", "50"]),
        ("trial={epochs: 35, lr_milestones: [30, 40]}", ["trial", "lr_milestones", "40", "35"]),
        (
            "resources.trial={gpu: 1.5}",
            ["override resources.trial.gpu: must be a part of one GPU", "whole number", "1.5"],
        ),
        ("resources.server={gpu: .inf}", ["override resources.server.gpu: must be a finite number", "inf"]),
        ("resources.training={cpu: .nan}", ["override resources.training.cpu: must be a finite number", "nan"]),
        ("name=../outside", ["name", "folder"]),
        ("trial.epochs", ["path.to.field=value", "'trial.epochs'"]),
        ("name.of=x", ["override name.of: name must be a mapping", "'a'"]),
    ],
)
def test_a_mistake_is_one_line_with_place_and_remedy(tmp_path, override, words):
    with pytest.raises(SpecError) as caught:
        load_study(write(tmp_path), [override])
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, ["no study file"]), ("name: [", ["line 1", "YAML"]), ("- a\n- b\n", ["mapping"]), ("seed: 1\n", ["name"])],
)
def test_an_unreadable_file_is_named(tmp_path, content, words):
    path = tmp_path / "study.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SpecError) as caught:
        load_study(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["mapping", "empty"]),
        (b"# only a comment\n", ["mapping", "empty"]),
        (b"name: a\ntitle: caf\xe9\n", ["line 2", "UTF-8"]),
        ("name: a\n".encode("utf-16"), ["line 1", "UTF-8"]),
        (b"name: a\n" + b"#" * 500_000, ["500,000 bytes"]),
        (b"name: a\nname: b\n", ["line 2", "'name'"]),
        (b"name: a\x00\n", ["line 1", "U+0000"]),
    ],
)
def test_a_file_that_is_not_the_text_of_a_study_is_refused(tmp_path, content, words):
    path = tmp_path / "study.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load_study(path)
    assert all(word in str(caught.value) for word in [str(path), *words]), caught.value


def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\n")
    assert load_study(path).name == "a"


def test_a_pipe_a_device_and_a_directory_are_no_study_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")  # reading it would wait for a writer
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for path in (tmp_path / "pipe.yaml", tmp_path, Path("/dev/zero"), tmp_path / "loop.yaml", tmp_path / ("a" * 300)):
        with pytest.raises(SpecError, match="give the path of a YAML file"):
            load_study(path)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"trial": {"epochs": True}}, ["trial.epochs", "whole number", "True"]),
        ({"trial": {"lr": "0.1"}}, ["trial.lr", "number", "'0.1'"]),
        ({"trial": {"flip": 1}}, ["trial.flip", "true or false", "1"]),
        ({"trial": {"lr_milestones": [5, True]}}, ["trial.lr_milestones.1", "whole number"]),
        ({"trial": {"threshold": math.nan}}, ["trial.threshold", "finite", "nan"]),
        ({"data": {"profile": {"exponent": math.inf}}}, ["data.profile.exponent", "finite", "inf"]),
        ({"search": {"space": {"epochs": {"choice": [True, 20]}}}}, ["search.space.epochs", "whole number", "True"]),
        ({"search": {"space": {"lr": {"choice": ["0.1", 0.5]}}}}, ["search.space.lr", "number", "'0.1'"]),
        ({"search": {"space": {"lr": {"choice": [math.nan]}}}}, ["search.space.lr.choice.0", "finite"]),
        ({"methods": {"a": {"epochs": True}}}, ["methods.a", "trial.epochs", "True"]),
        ({"methods": {"a": {"lr": math.inf}}}, ["methods.a", "trial.lr", "finite"]),
        ({"resources": {"servers": 10**9}}, ["resources.servers", "1000"]),
        ({"search": {"space": {"lr": {"float": [0.1, 0.2], "step": 1e-300}}}}, ["search.space.lr", "10^15"]),
        ({"search": {"space": {"lr": {"float": [0.1, 0.2], "step": 5}}}}, ["search.space.lr", "step"]),
        ({"generator": {"kind": "mnuit"}}, ["generator", "'munit'", "'mnuit'"]),
        ({"resources": {"max_concurrent": 0}}, ["resources.max_concurrent", "1 or 'auto'", "0"]),
        ({"data": {"groups": {"mny": 5}}}, ["data.groups", "did you mean 'many'"]),
    ],
)
def test_no_value_is_converted_and_no_wording_of_a_library_is_shown(tmp_path, fields, words):
    with pytest.raises(SpecError) as caught:
        load_study(write(tmp_path, **fields))
    assert all(word in str(caught.value) for word in words), caught.value
    assert not INTERNALS.search(str(caught.value))


def test_numbers_in_choices_and_points_are_numbers(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("name: a\nsearch: {space: {lr: {choice: [1e-3, 1e-2]}}, try_first: [{lr: 1e-2}]}\nseed: 3.0\n")
    spec = load_study(path)
    assert spec.search.space["lr"].choice == (0.001, 0.01) and spec.search.try_first == ({"lr": 0.01},)
    assert (spec.seed, spec.trial.seed) == (3, 3)


def test_text_for_a_number_in_a_study_of_an_earlier_gitdist_is_still_a_number():
    values = {"name": "a", "trial": {"lr": "1e-2"}, "search": {"space": {"lr": {"choice": ["1e-3", "1e-2"]}}}}
    spec = parse_study(values, "stored")
    assert spec.trial.lr == 0.01
    assert spec.trial_of({"lr": "1e-3"}).lr == 0.001
    with pytest.raises(SpecError, match="must be a number"):
        parse_study(values, "file", stored=False)


def test_milestones_that_are_not_given_follow_epochs_that_are_written_as_a_float(tmp_path):
    assert load_study(write(tmp_path, trial={"epochs": 20.0})).trial.lr_milestones == (12, 16)


@pytest.mark.parametrize("epochs", [1, 3])
def test_default_milestones_may_be_the_same_twice(tmp_path, epochs):
    spec = load_study(write(tmp_path, trial={"epochs": epochs}))
    (tmp_path / "copy.yaml").write_text(dump_study(spec))
    assert load_study(tmp_path / "copy.yaml") == spec


def test_milestones_follow_a_searched_number_of_epochs_unless_they_were_given():
    follows = StudySpec(name="x", trial=TrialSpec(epochs=50))
    assert follows.trial_of({"epochs": 40}).lr_milestones == (24, 32)
    assert follows.trial_of({"lr": 0.2}).lr_milestones == (30, 40)
    given = StudySpec(name="x", trial=TrialSpec(epochs=50, lr_milestones=(10, 20)))
    assert given.trial_of({"epochs": 40}).lr_milestones == (10, 20)
    StudySpec.model_validate({"name": "x", "search": {"space": {"epochs": {"int": [20, 50]}}}})
