import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import TensorDataset

import gitdist
from gitdist.data.dataset import prepare
from gitdist.store import Store

FIELDS = {"profile": {"kind": "exponential", "largest": 20, "factor": 0.5}, "validation_per_class": 5}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Grey images [N, 8, 8] of three classes, uint8."""
    images, labels = load_digits(n_class=3, return_X_y=True)
    return (images.reshape(-1, 8, 8) * 15).astype(np.uint8), labels


@pytest.fixture
def halves(digits, tmp_path) -> dict:
    """Arguments with training and test images."""
    images, labels = digits
    return {
        "images": images[:300],
        "labels": labels[:300],
        "test_images": images[300:],
        "test_labels": labels[300:],
        "results": tmp_path,
        **FIELDS,
    }


def test_arrays_become_the_splits(halves):
    prepared = gitdist.Dataset.from_arrays(**halves, class_names=["zero", "one", "two"]).prepared
    assert prepared.class_names == ("zero", "one", "two") and prepared.image_shape == (1, 8, 8)
    assert prepared.class_sizes.tolist() == [20, 14, 10]
    assert np.array_equal(prepared.test.images[:, 0], halves["test_images"])
    assert np.array_equal(prepared.test.labels, halves["test_labels"])
    for split in (prepared.train, prepared.validation):
        assert np.array_equal(split.images[:, 0], halves["images"][split.source])
        assert np.array_equal(split.labels, halves["labels"][split.source])


def test_the_same_arrays_are_stored_once_and_others_beside_them(halves, tmp_path):
    first = gitdist.Dataset.from_arrays(**halves)
    assert gitdist.Dataset.from_arrays(**halves).spec == first.spec
    other = gitdist.Dataset.from_arrays(**{**halves, "test_labels": np.roll(halves["test_labels"], 1)})
    assert other.spec.path != first.spec.path
    assert len(list((tmp_path / "store" / "arrays").iterdir())) == 2


def test_the_spec_is_that_of_a_study_file_and_stays_valid_when_the_results_move(halves, tmp_path):
    results = tmp_path / "old"
    dataset = gitdist.Dataset.from_arrays(**{**halves, "results": results})
    fingerprint = dataset.prepared.fingerprint
    again = gitdist.Dataset(dataset.spec.model_dump(mode="json"), results=tmp_path / "others")
    assert again.spec == dataset.spec and again.prepared.fingerprint == fingerprint
    shutil.move(results, tmp_path / "new")
    assert prepare(dataset.spec, Store(tmp_path / "new" / "store")).fingerprint == fingerprint


def test_without_test_images_a_share_of_each_class_is_split_off_group_by_group(digits, tmp_path):
    images, labels = digits
    groups = [f"{label}/{index // 12}" for index, label in enumerate(labels)]  # of about four images
    settings = {"results": tmp_path, "groups": groups, "test_share": 0.25, **FIELDS}
    prepared = gitdist.Dataset.from_arrays(images, labels, **settings).prepared
    shares = np.bincount(prepared.test.labels) / np.bincount(labels)
    assert (shares > 0.2).all() and (shares <= 0.25).all()
    splits = (prepared.train, prepared.validation, prepared.test)
    used = [set(split.groups.tolist()) for split in splits]
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images[..., None],
        lambda images: torch.from_numpy(images),
        lambda images: torch.from_numpy(images)[:, None] / 255,
        lambda images: images[:, None] / 255,
        lambda images: images.tolist() and [image / np.float32(255) for image in images],
    ],
    ids=["channels last", "tensor", "tensor of floats", "channels first, floats", "list of arrays"],
)
def test_every_form_of_the_same_images_is_the_same_data_set(halves, change):
    expected = gitdist.Dataset.from_arrays(**halves).spec
    changed = {name: change(halves[name]) for name in ("images", "test_images")}
    assert gitdist.Dataset.from_arrays(**{**halves, **changed}).spec == expected


def test_a_shape_that_allows_both_is_read_by_type(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 3), np.uint8)
    labels = np.arange(40) % 2
    array = gitdist.Dataset.from_arrays(images, labels, results=tmp_path)
    tensor = gitdist.Dataset.from_arrays(torch.from_numpy(images), torch.from_numpy(labels), results=tmp_path)
    assert (array.prepared.image_shape, tensor.prepared.image_shape) == ((3, 3, 8), (3, 8, 3))


class Pictures:
    """A map-style data set like those of torchvision: PIL images, and names of the classes."""

    classes = ("zero", "one", "two")

    def __init__(self, images, labels, convert=Image.fromarray):
        self.images, self.labels, self.convert = images, labels, convert

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.convert(self.images[index]), self.labels[index]


def test_torch_data_sets_of_tensors_arrays_and_pil_images_are_the_same_data_set(halves):
    images, labels, test_images, test_labels = (
        halves[name] for name in ("images", "labels", "test_images", "test_labels")
    )
    settings = {"class_names": Pictures.classes, "results": halves["results"], **FIELDS}
    expected = gitdist.Dataset.from_arrays(**{**halves, "class_names": Pictures.classes}).spec
    tensors = [
        TensorDataset(torch.from_numpy(x)[:, None] / 255, torch.from_numpy(y))
        for x, y in ((images, labels), (test_images, test_labels))
    ]
    assert gitdist.Dataset.from_torch(*tensors, **settings).spec == expected
    for convert in (Image.fromarray, lambda image: image[..., None]):
        pictures = Pictures(images, labels, convert), Pictures(test_images, test_labels, convert)
        assert gitdist.Dataset.from_torch(*pictures, results=halves["results"], **FIELDS).spec == expected


def test_a_folder_is_the_source_images(digits, tmp_path):
    images, labels = digits
    for index, (image, label) in enumerate(zip(images[:120], labels[:120], strict=True)):
        folder = tmp_path / "own" / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    dataset = gitdist.Dataset.from_folder(tmp_path / "own", results=tmp_path / "results", image_size=8)
    assert dataset.prepared.class_names == ("class 0", "class 1", "class 2")
    assert dataset.spec.source == "images" and Path(dataset.spec.path).is_absolute()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": np.zeros((300, 8, 8), np.int64)}, "int64"),
        ({"images": np.full((300, 8, 8), 200.0)}, "0..1"),
        ({"images": np.full((300, 8, 8), np.nan)}, "0..1"),
        ({"images": np.zeros((300, 9, 8, 8), np.uint8)}, "channels"),
        ({"images": np.zeros((300, 8), np.uint8)}, "[300, 8]"),
        ({"images": [[[1], [1, 2]]]}, "array"),
        ({"labels": np.zeros(300)}, "float64"),
        ({"labels": np.zeros(299, np.int64)}, "299"),
        ({"labels": np.full(300, 3)}, "'0'"),
        ({"labels": np.array([0] * 299 + [10**12])}, "'1'"),
        ({"labels": np.arange(300) - 1}, "-1"),
        ({"test_labels": None}, "test_images"),
        ({"test_images": np.zeros((237, 9, 9), np.uint8)}, "[9, 9, 1]"),
        ({"class_names": ["a", "b"]}, "0..1"),
        ({"class_names": ["a", "b", "b"]}, "'b'"),
        ({"class_names": ["a", "b", "c", "d"]}, "'d'"),
        ({"groups": [1, 2]}, "300"),
        ({"test_images": None, "test_labels": None, "test_share": 1.5}, "1.5"),
        ({"test_images": None, "test_labels": None, "test_share": "half"}, "half"),
        ({"profile": {"kind": "zpif"}}, "zpif"),
        ({"no_such_field": 1}, "no_such_field"),
        ({"path": "elsewhere"}, "path"),
    ],
)
def test_bad_arrays_are_one_line_that_names_the_value(halves, change, named):
    with pytest.raises(gitdist.GitdistError, match=re.escape(named)) as caught:
        gitdist.Dataset.from_arrays(**{**halves, **change})
    assert "\n" not in str(caught.value)


def test_a_name_is_no_data_set():
    with pytest.raises(gitdist.GitdistError, match="fields of a data source"):
        gitdist.Dataset("digits")


@pytest.mark.parametrize(
    ("items", "named"),
    [
        ([], "items"),
        (iter([(np.zeros((8, 8), np.uint8), 0)]), "map-style"),
        ([np.zeros((8, 8), np.uint8)], "item 0"),
        ([(np.zeros((8, 8), np.uint8), 0.5)], "item 0"),
        ([(np.zeros(8, np.uint8), 0)], "[8]"),
        ([(np.zeros((8, 8), np.uint8), 0), (np.zeros((9, 8), np.uint8), 1)], "item 1"),
        ([(Image.new("I;16", (8, 8)), 0)], "I;16"),
        ([(torch.randn(1, 8, 8), 0)], "0..1"),
    ],
)
def test_bad_items_are_one_line_that_names_them(tmp_path, items, named):
    with pytest.raises(gitdist.GitdistError, match=re.escape(named)) as caught:
        gitdist.Dataset.from_torch(items, results=tmp_path)
    assert "\n" not in str(caught.value)
