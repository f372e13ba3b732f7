"""Data plugins: functions of another package that return arrays, or paths and labels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitdist.data.sources import load_source, row_names, source_digest
from gitdist.data.sources.base import SourceImages
from gitdist.data.splits import split_rows
from gitdist.errors import GitdistError
from gitdist.spec import DataSpec
from tests.data.sources import sample_data_plugins
from tests.data.sources.test_images import save, write_flat

PLUGINS = "tests.data.sources.sample_data_plugins"


def spec_of(name: str, path: Path | None = None, group: str | None = None, **options: Any) -> DataSpec:
    return DataSpec(source="plugin", target=f"{PLUGINS}:{name}", path=path and str(path), group=group, options=options)


def load(name: str, path: Path | None = None, group: str | None = None, **options: Any) -> SourceImages:
    return load_source(spec_of(name, path, group, **options))


def test_arrays_of_given_splits_are_used_as_they_are() -> None:
    source = load("arrays", counts=[40, 8, 16])
    expected = sample_data_plugins.arrays(None, (40, 8, 16))
    images = [expected[split]["images"].transpose(0, 3, 1, 2) for split in ("train", "validation", "test")]
    np.testing.assert_array_equal(source.train_images, np.concatenate(images[:2]))
    np.testing.assert_array_equal(source.test_images, images[2])
    assert source.class_names == ("0", "1", "2", "3") and source.test_labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] * 2
    assert source.validation is not None and source.validation.tolist() == [False] * 40 + [True] * 8
    assert source.train_groups is not None and source.test_groups is not None and len(source.group_names) == 32
    assert row_names(spec_of("arrays", counts=[40, 8, 16])) is None


def test_missing_splits_are_split_off_training_group_by_group() -> None:
    source = load("arrays")
    assert (len(source.train_labels), len(source.test_labels)) == (32, 8)
    assert source.train_groups is not None and source.test_groups is not None
    assert not set(source.train_groups.tolist()) & set(source.test_groups.tolist())
    assert len(split_rows(source, DataSpec()).validation) == 4
    assert load("arrays", group="none").train_groups is None


def test_labels_may_be_names_and_classes_may_be_left_out() -> None:
    source = load("named")
    assert source.class_names == ("dog", "cat", "bee", "ant") and set(source.train_labels.tolist()) == {0, 1, 2, 3}
    assert source.digest() == load("named", as_objects=True).digest()
    fewer = load_source(spec_of("named").model_copy(update={"exclude": ("dog",)}))
    assert fewer.class_names == ("cat", "bee", "ant") and len(fewer.train_images) == 24


@pytest.mark.parametrize("absolute", [False, True])
def test_paths_are_read_as_those_of_a_folder(tmp_path: Path, absolute: bool) -> None:
    write_flat(tmp_path)
    source, folder = (
        load("folder", tmp_path, absolute=absolute),
        load_source(DataSpec(source="images", path=str(tmp_path))),
    )
    np.testing.assert_array_equal(source.train_images, folder.train_images)
    np.testing.assert_array_equal(source.test_images, folder.test_images)
    assert source.class_names == folder.class_names
    names = row_names(spec_of("folder", tmp_path, absolute=absolute))
    known = row_names(DataSpec(source="images", path=str(tmp_path)))
    assert names is not None and known is not None
    assert [str(tmp_path / name) for name in names[0]] == [str(tmp_path / name) for name in known[0]]
    save(tmp_path / "cat" / "broken.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "cat" / "broken.png").write_bytes(b"")
    with pytest.raises(GitdistError, match="image 10 of train in data.target: .*broken.png .* empty"):
        load("folder", tmp_path, absolute=absolute)


def test_the_digest_is_that_of_what_it_returns() -> None:
    digests = {source_digest(spec_of("arrays", counts=counts)) for counts in ([40, 0, 0], [44, 0, 0], [40, 0, 8])}
    assert len(digests) == 3
    assert source_digest(spec_of("arrays")) in digests


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("raise", r"RuntimeError: no table \(sample_data_plugins.py, line \d+\)"),
        ("leave", "ended its process with exit code 0"),
        ("abort", "killed by SIGABRT"),
        ("list", "must return a mapping with train, validation, test, classes, but it is of type list"),
        ("no train", "with the key train"),
        ("key", "but it has the key 'valid' too"),
        ("inner key", "but train has the key 'label' too"),
        ("both", "either images or paths in train, but it returned images, labels, groups, paths"),
        ("mixed", "images for all splits or paths for all"),
        ("no paths", "there are none"),
        ("bytes", "must return paths as text in train"),
        ("relative", "image 0 of train in data.target: a path must be absolute, or data.path must be set"),
        ("objects", "an array as train.images, but it is of object"),
        ("kind", r"uint8 \[N, H, W, C\] .* train of data.target .* float64"),
        ("order", r"4 channels .*transpose"),
        ("shapes", "images of one shape"),
        ("labels", r"integers or text \[40\] as train.labels, but it returned int64 \[39\]"),
        ("numbers", r"as train.labels, but it returned float64 \[40\]"),
        ("gaps", "without gaps, but image 6 of train in data.target has 6 and no image has 5"),
        ("groups", "groups for all splits or for none"),
        ("classes", "has 'b' twice"),
        ("few", r"image 4 of train in data.target: a label must be from 0 to 1 \(2 classes\), but it is 2"),
    ],
)
def test_a_mistake_is_one_line_with_the_target(how: str, message: str) -> None:
    with pytest.raises(GitdistError, match=message) as caught:
        load("fails", how=how)
    assert "data.target" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (f"{PLUGINS}:not_callable", "must be a function, but it is of type int"),
        ("digits", "no such entry point .*"),
    ],
)
def test_a_target_that_is_no_plugin_is_one_line(target: str, message: str) -> None:
    with pytest.raises(GitdistError, match=message) as caught:
        load_source(DataSpec(source="plugin", target=target))
    assert "data.target" in str(caught.value)
