from pathlib import Path

import pytest
import yaml

from gitdist.data import DATASET_FORMAT
from gitdist.errors import SpecError, StoreError, StudyError
from gitdist.networks.pretrained import WeightsFile
from gitdist.spec import StudySpec
from gitdist.study.compatibility import (
    check_or_record_data,
    check_or_record_weights,
    describe_edit,
    ensure_identity,
    fork,
    has_current_splits,
    is_spec_stored,
    load_stored_spec,
    result_fields,
    store_spec,
)
from gitdist.study.files.layout import StudyPaths


class Memory:
    """A ledger's attributes, stored in a dictionary."""

    def __init__(self, values: dict, set_attr=None) -> None:
        self.get_attr = values.get
        self.set_attr = set_attr or values.__setitem__


@pytest.fixture
def paths(tmp_path) -> StudyPaths:
    paths = StudyPaths.at(tmp_path, "study")
    paths.create()
    return paths


def spec_with(**fields) -> StudySpec:
    return StudySpec(name="study", **fields)


def refusal_of(paths, spec) -> str:
    with pytest.raises(StudyError) as caught:
        store_spec(paths, spec)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The spec.


def test_the_stored_spec_is_the_resolved_one(paths):
    spec = spec_with(trial={"epochs": 3})
    store_spec(paths, spec)
    assert load_stored_spec(paths) == spec
    assert StudySpec.model_validate(yaml.safe_load(paths.spec.read_text())) == spec


@pytest.mark.parametrize(
    "change",
    [
        {"search": {"total": 30}},
        {"search": {"total": 3}},
        {"resources": {"trial": {"cpu": 4}, "max_concurrent": 2}},
        {"tracking": {"uri": "http://127.0.0.1:5000"}},
        {"stream": {"window_mb": 64, "lookahead": 3}},
        {"resources": {"servers": 2}},
        {"generator": {"kind": "munit", "checkpoint_every": 7}},
    ],
)
def test_what_leaves_results_comparable_may_change(paths, change):
    store_spec(paths, spec_with())
    store_spec(paths, spec_with(**change))
    assert load_stored_spec(paths) == spec_with(**change)


def test_a_study_goes_on_by_its_name_as_it_was_asked_for_once_its_spec_is_stored(paths):
    assert not is_spec_stored(paths, spec_with())
    store_spec(paths, spec_with())
    assert is_spec_stored(paths, spec_with())
    assert not is_spec_stored(paths, spec_with(search={"total": 30}))
    paths.spec.write_text("torn")
    assert not is_spec_stored(paths, spec_with())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trial": {"epochs": 7}}, ["trial.epochs", "50", "7"]),
        ({"data": {"nuisance": "rotation"}}, ["data.nuisance", "'none'", "'rotation'"]),
        ({"search": {"objective": "val/ekld"}}, ["search.objective", "'val/balanced_accuracy'", "'val/ekld'"]),
        ({"search": {"space": {"fraction": {"float": [0, 1]}}}}, ["search.space.fraction", "absent", "(0.0, 1.0)"]),
        ({"stream": {"block_size": 8}}, ["stream.block_size", "64", "8"]),
        ({"evaluation": {"every": 2}}, ["evaluation.every", "1", "2"]),
        ({"ledger": "journal"}, ["ledger", "'sqlite'", "'journal'"]),
    ],
)
def test_what_determines_results_may_not_change(paths, change, words):
    store_spec(paths, spec_with())
    before = paths.spec.read_bytes()
    message = refusal_of(paths, spec_with(**change))
    assert all(word in message for word in [*words, "study 'study'", str(paths.spec)]), message
    assert paths.spec.read_bytes() == before


def test_every_forbidden_change_is_named(paths):
    store_spec(paths, spec_with())
    change = {"trial": {"epochs": 7, "lr": 0.5}, "data": {"nuisance": "rotation"}, "search": {"total": 99}}
    message = refusal_of(paths, spec_with(**change))
    assert message.startswith("data.nuisance must stay ")
    assert "(and 3 more: trial.epochs, trial.lr, trial.lr_milestones)" in message
    assert "search.total" not in message


def test_a_change_deep_inside_is_named_by_its_own_path(paths):
    def searching(top: float, second: float) -> StudySpec:
        return spec_with(
            search={
                "space": {"fraction": {"float": [0.1, top]}},
                "try_first": [{"fraction": 0.2}, {"fraction": second}],
            }
        )

    store_spec(paths, searching(0.8, 0.3))
    assert "search.space.fraction.float must stay" in refusal_of(paths, searching(0.9, 0.3))
    assert "search.try_first.1.fraction must stay" in refusal_of(paths, searching(0.8, 0.4))


def test_another_kind_of_generator_is_one_change(paths):
    store_spec(paths, spec_with())
    message = refusal_of(paths, spec_with(generator={"kind": "identity"}))
    assert message.startswith("generator.kind must stay ")
    assert "more:" not in message


def test_a_field_of_which_a_changeable_one_is_a_prefix_stays(paths, monkeypatch):
    monkeypatch.setattr("gitdist.study.compatibility.MAY_CHANGE", ("trial.lr",))
    store_spec(paths, spec_with())
    store_spec(paths, spec_with(trial={"lr": 0.3}))
    assert "trial.lr_decay must stay" in refusal_of(paths, spec_with(trial={"lr": 0.3, "lr_decay": 0.2}))


def test_fields_of_an_earlier_version_are_read_where_they_stand_now(paths):
    store_spec(paths, spec_with(resources={"servers": 3}))
    values = yaml.safe_load(paths.spec.read_text())
    del values["resources"]["servers"]
    values["stream"]["servers"], values["resources"]["max_concurrent"] = 3, None
    paths.spec.write_text(yaml.safe_dump(values))
    assert load_stored_spec(paths) == spec_with(resources={"servers": 3})
    store_spec(paths, spec_with())


def test_the_stored_spec_of_an_earlier_version_takes_the_defaults_of_new_fields(paths):
    store_spec(paths, spec_with(trial={"epochs": 3}))
    old = yaml.safe_load(paths.spec.read_text())
    del old["ledger"], old["search"]["try_first"], old["trial"]["crop_padding"]
    paths.spec.write_text(yaml.safe_dump(old, sort_keys=False))
    store_spec(paths, spec_with(trial={"epochs": 3}))
    assert load_stored_spec(paths) == spec_with(trial={"epochs": 3})


def assert_damaged(paths) -> None:
    for use in (load_stored_spec, lambda paths: store_spec(paths, spec_with())):
        with pytest.raises(StudyError, match=f"^{paths.spec} .*damaged.*restore it") as caught:
            use(paths)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 300,
        b"name: study\ntrial: {epochs: ",
        b"- 1\n",
        b"\xff\xfe",
        b"name: study\ntrial: {epochs: many}\n",
    ],
)
def test_a_damaged_stored_spec_is_named_with_the_remedy(paths, content):
    paths.spec.write_bytes(content)
    assert_damaged(paths)
    assert paths.spec.read_bytes() == content


def test_a_stored_spec_torn_at_any_line_is_damaged_and_never_taken_for_a_shorter_one(paths):
    store_spec(paths, spec_with())
    lines = paths.spec.read_bytes().splitlines(keepends=True)
    assert len(lines) > 50
    for number in range(len(lines)):
        paths.spec.write_bytes(b"".join(lines[:number]))
        assert_damaged(paths)


def test_a_copied_study_directory_is_not_taken_for_the_original(paths):
    store_spec(paths, spec_with())
    copy = StudyPaths.at(paths.results, "copy")
    copy.create()
    copy.spec.write_bytes(paths.spec.read_bytes())
    with pytest.raises(StudyError, match="of study 'copy', but it is of 'study'"):
        load_stored_spec(copy)


def test_a_study_that_was_never_run_is_told_from_a_damaged_one(paths):
    with pytest.raises(StudyError, match="no study 'study'"):
        load_stored_spec(paths)


def test_an_unwritable_place_is_named():
    with pytest.raises(StoreError, match="results directory"):
        StudyPaths.at(Path("/proc/nowhere"), "study").create()


# Forks.


def test_a_fork_is_the_same_study_under_another_name():
    spec = StudySpec(
        name="study",
        seed=4,
        trial={"lr_milestones": [1, 2], "epochs": 9},
        search={"space": {"threshold": {"int": [10, 100], "log": True}}},
    )
    forked = fork(spec, "other")
    assert forked.name == "other"
    assert forked.model_copy(update={"name": "study"}) == spec


@pytest.mark.parametrize("name", ["", "a/b", "store", ".hidden", "x" * 65, "study"])
def test_a_fork_takes_only_a_name_that_another_study_file_could_have(name):
    with pytest.raises(SpecError, match="fork.* name") as caught:
        fork(spec_with(), name)
    assert "\n" not in str(caught.value)


# The data set.


def test_a_resume_with_other_data_is_refused_with_both_fingerprints(paths):
    memory = {}
    check_or_record_data(paths, Memory(memory), "aaaa")
    check_or_record_data(paths, Memory(memory), "aaaa")
    with pytest.raises(StudyError, match="'study'.*aaaa.*bbbb.*restore the files") as caught:
        check_or_record_data(paths, Memory(memory), "bbbb")
    assert caught.value.remedy == "fork"
    assert memory == {"data": "aaaa", "data_format": DATASET_FORMAT}


def test_a_resume_with_other_pretrained_weights_is_refused_with_both_hashes():
    memory = Memory({})
    first, second = (WeightsFile(Path("/store/weights"), digest) for digest in ("aaa", "bbb"))
    check_or_record_weights(memory, {})
    assert memory.get_attr("weights") is None
    check_or_record_weights(memory, {"/a.pth": first})
    check_or_record_weights(memory, {"/a.pth": first, "/b.pth": second})
    assert memory.get_attr("weights") == {"/a.pth": "aaa", "/b.pth": "bbb"}
    with pytest.raises(StudyError, match="weights aaa of /a.pth, but they are now bbb"):
        check_or_record_weights(memory, {"/a.pth": second})


@pytest.mark.parametrize(
    ("memory", "current"),
    [
        ({}, True),
        ({"data": "aaaa", "data_format": DATASET_FORMAT}, True),
        ({"data": "aaaa"}, False),  # as gitdist 0.5 left it
        ({"data": "aaaa", "data_format": DATASET_FORMAT - 1}, False),
    ],
)
def test_a_study_knows_the_rules_that_its_data_were_split_by(memory, current):
    assert has_current_splits(Memory(memory)) is current


# The identity.


@pytest.fixture
def settle(paths):
    store_spec(paths, spec_with())

    def settle_(memory: dict, paths: StudyPaths = paths) -> str:
        return ensure_identity(paths, Memory(memory))

    return settle_


def keep_ledger_elsewhere(paths) -> None:
    paths.spec.unlink()
    store_spec(paths, spec_with(ledger="postgresql://127.0.0.1/studies"))


def test_an_identity_is_made_once_and_stays(paths, settle):
    memory = {}
    identity = settle(memory)
    assert len(bytes.fromhex(identity)) == 16
    assert memory == {"identity": identity}
    assert (paths.study / "identity").read_text() == identity
    assert settle(memory) == identity


def test_two_studies_have_two_identities(tmp_path, settle):
    other = StudyPaths.at(tmp_path / "elsewhere", "study")
    other.create()
    store_spec(other, spec_with())
    assert settle({}) != settle({}, other)


def test_a_kill_before_the_ledger_has_the_identity_changes_nothing(paths, settle):
    memory = {}

    def killed(key, value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ensure_identity(paths, Memory(memory, killed))
    begun = (paths.study / "identity").read_text()
    identity = settle(memory)
    assert identity == begun
    assert memory == {"identity": identity}


def test_a_ledger_inside_the_directory_gives_the_identity_it_has(paths, settle):
    assert settle({"identity": "cafe"}) == "cafe"
    assert (paths.study / "identity").read_text() == "cafe"


def test_a_ledger_elsewhere_that_has_the_study_of_another_directory_is_refused(paths, settle):
    keep_ledger_elsewhere(paths)
    with pytest.raises(StudyError, match="another results directory") as caught:
        settle({"identity": "cafe"})
    assert caught.value.remedy == "fork_or_find"
    assert not (paths.study / "identity").exists()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_ledger_of_another_study_is_refused(paths, settle, elsewhere):
    settle({})
    if elsewhere:
        keep_ledger_elsewhere(paths)
    before = (paths.study / "identity").read_bytes()
    with pytest.raises(StudyError, match="another results directory" if elsewhere else "remove that file"):
        settle({"identity": "cafe"})
    assert (paths.study / "identity").read_bytes() == before


def test_a_new_ledger_does_not_take_the_trials_of_a_lost_one_for_its_own(paths, settle):
    settle({})
    (paths.study / "trials" / "0000").mkdir(parents=True)
    memory = {}
    with pytest.raises(StudyError, match="ledger of study 'study' lacks; restore the ledger"):
        settle(memory)
    assert memory == {}


# The ledger's copy of the stored spec.


class Killed(Exception):
    pass


def settle_with(memory: dict, paths: StudyPaths, spec: StudySpec, survives: int = 9) -> None:
    """Settle a spec with a ledger whose driver is killed after a number of writes."""
    writes = []

    def remember(key, value):
        if len(writes) == survives:
            raise Killed
        writes.append(key)
        memory[key] = value

    store_spec(paths, spec, Memory(memory, remember))


@pytest.mark.parametrize("survives", [0, 1])
def test_a_kill_while_the_spec_is_replaced_is_no_edit(paths, survives):
    memory: dict = {}
    settle_with(memory, paths, spec_with())
    longer = spec_with(search={"total": 30})
    with pytest.raises(Killed):
        settle_with(memory, paths, longer, survives)
    assert describe_edit(paths, Memory(memory)) is None
    settle_with(memory, paths, longer)
    assert load_stored_spec(paths) == longer and describe_edit(paths, Memory(memory)) is None


def test_an_edit_is_named_with_old_and_new_values_and_refused(paths):
    memory: dict = {}
    settle_with(memory, paths, spec_with())
    edited = paths.spec.read_text().replace("batch_size: 128", "batch_size: 64")
    paths.spec.write_text(edited)
    with pytest.raises(StudyError, match="trial.batch_size is 64 and was 128") as caught:
        settle_with(memory, paths, spec_with())
    assert str(paths.spec) in str(caught.value) and caught.value.remedy == "change_field"
    assert paths.spec.read_text() == edited


def test_an_edit_that_changes_no_field_is_none(paths):
    memory: dict = {}
    settle_with(memory, paths, spec_with())
    paths.spec.write_text("# mine\n" + paths.spec.read_text())
    assert describe_edit(paths, Memory(memory)) is None
    settle_with(memory, paths, spec_with())


def test_a_study_whose_ledger_remembers_no_spec_is_taken_as_it_stands(paths):
    store_spec(paths, spec_with(trial={"epochs": 3}))
    memory: dict = {}
    settle_with(memory, paths, spec_with(trial={"epochs": 3}))
    paths.spec.write_text(paths.spec.read_text().replace("epochs: 3", "epochs: 4"))
    assert "trial.epochs is 4 and was 3" in describe_edit(paths, Memory(memory))


def test_paths_may_change_and_the_data_and_the_generator_decide(paths):
    generator = {"kind": "pretrained", "path": "/old/munit.safetensors"}
    store_spec(paths, spec_with(data={"source": "npz", "path": "/old"}, generator=generator))
    moved = spec_with(data={"source": "npz", "path": "/new"}, generator={**generator, "path": "/new/m.safetensors"})
    store_spec(paths, moved)
    assert load_stored_spec(paths) == moved
    assert result_fields(moved) == result_fields(spec_with(data={"source": "npz"}, generator=generator))


def test_lists_may_be_moved_but_a_share_stays(paths):
    def listed(folder, **changed):
        files = {split: f"{folder}/{split}.txt" for split in ("train", "validation", "test", "classes")}
        return spec_with(data={"source": "list", "path": folder, **files, **changed})

    store_spec(paths, listed("/old"))
    store_spec(paths, listed("/new"))
    assert load_stored_spec(paths) == listed("/new") and result_fields(listed("/old")) == result_fields(listed("/new"))
    with pytest.raises(StudyError, match="data.validation"):
        store_spec(paths, listed("/new", validation=0.3))
