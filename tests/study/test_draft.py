"""The choices of a first study: valid, and fitting to the data, for all kinds of data and machines."""

from typing import get_args

import pytest

from gitdist.data.dataset import prepare
from gitdist.networks import fitting_networks
from gitdist.spec import MunitSpec, StudySpec
from gitdist.spec.data import PublishedName
from gitdist.spec.file import load_study, parse_study
from gitdist.spec.strict_yaml import load_yaml
from gitdist.spec.study import check_name
from gitdist.spec.trial import default_milestones
from gitdist.store.temporary import temporary_store
from gitdist.study.draft import Machine, OwnData, PublishedData, draft_study, study_name, too_small, training_sizes

LAPTOP, SERVER = Machine(num_cpus=2, num_gpus=0), Machine(num_cpus=32, num_gpus=2)
PHOTOS = {"airplane": 170, "bird": 100, "cat's #1: 'x'": 60, "null": 12}


def own(counts: dict[str, int], sides: tuple[int, int, int] = (64, 128, 200), given: tuple[str, ...] = ()) -> OwnData:
    return OwnData(source="images", path="photos/a b: #1", counts=counts, given=("train", *given), sides=sides)


def study(data: OwnData | PublishedData, machine: Machine = LAPTOP, side: int = 32) -> StudySpec:
    text = draft_study("name", data, side, fitting_networks((3, side, side))[0], machine)
    return parse_study(load_yaml(text), "draft", stored=False)


def test_lr_milestones_follow_changed_epochs(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(draft_study("name", own(PHOTOS), 32, "resnet20", LAPTOP))
    spec = load_study(file, ["trial.epochs=6", "trial.switch_epoch=3"])
    assert spec.trial.lr_milestones == default_milestones(6)


def test_the_range_of_k_separates_the_classes():
    spec = study(own(PHOTOS))
    sizes = training_sizes(own(PHOTOS), LAPTOP)
    low, high = spec.search.space["threshold"].bounds or (0, 0)
    assert sum(size < low for size in sizes) == 1 and all(size < high for size in sizes)


@pytest.mark.parametrize("counts", [{"a": 40, "b": 40}, {"a": 4, "b": 3}])
def test_k_is_not_searched_if_it_separates_nothing(counts):
    assert "threshold" not in study(own(counts)).search.space


def test_paths_and_names_are_those_given():
    spec = study(own({**PHOTOS, "off": 2}))
    assert spec.data.path == "photos/a b: #1" and spec.data.exclude == ("off",)


@pytest.mark.parametrize(("given", "needed"), [((), 3), (("test",), 2), (("test", "validation"), 1)])
def test_classes_that_cannot_be_split_are_left_out(given, needed):
    data = own({"a": 9, "b": needed, "c": needed - 1}, given=given)
    assert too_small(data) == ["c"]
    assert study(data).data.exclude == ("c",) and min(training_sizes(data, LAPTOP)) >= 1


def test_small_classes_get_more_validation_images():
    shares = [study(own({"a": 100, "b": count})).data.validation_share for count in (100, 21, 10)]
    assert shares == [0.2, 0.25, 0.3]


@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
@pytest.mark.parametrize("median", [9, 20, 32, 47, 64, 500])
def test_images_are_not_enlarged_much_and_fit_the_generator(median, machine):
    data = own(PHOTOS, (8, median, 900))
    size = study(data, machine).data.image_size
    assert size is not None and size <= max(16, median, 32) and size % 4 == 0
    assert machine.num_gpus or size <= 32


@pytest.mark.parametrize("machine", [LAPTOP, SERVER])
@pytest.mark.parametrize("source", get_args(PublishedName))
def test_every_published_source_has_a_draft(source, machine):
    counts = {str(index): 6000 for index in range(10)}
    spec = study(PublishedData(source=source, counts=counts), machine, 28)
    assert spec.data.source == source and isinstance(spec.generator, MunitSpec)
    sizes = training_sizes(PublishedData(source=source, counts=counts), machine)
    assert min(sizes) >= 10 and max(sizes) >= 10 * min(sizes)


def test_sizes_are_those_of_the_prepared_data():
    counts = dict.fromkeys(map(str, range(10)), 100)
    with temporary_store() as store:
        data = PublishedData(source="digits", counts=counts)
        dataset = prepare(study(data, side=8).data, store)
    assert dataset.class_sizes.tolist() == training_sizes(data, LAPTOP)


@pytest.mark.parametrize("text", ["photos", "My photos (2024)", "store", "a.yaml", "...", "é", "x" * 90, "-a", ""])
def test_every_folder_gives_a_name(text):
    assert check_name(study_name(text))
