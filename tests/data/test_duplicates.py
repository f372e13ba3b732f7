from pathlib import Path

import numpy as np
import pytest

from gitdist.data.dataset import Dataset, prepare
from gitdist.data.duplicates import OfficialImage, find_duplicates
from gitdist.spec import DataSpec
from gitdist.store import Store


def prepared(folder: Path, train: np.ndarray, test: np.ndarray, **fields: object) -> Dataset:
    for name, images in (("train", train), ("test", test)):
        np.savez(folder / f"{name}.npz", images=images, labels=np.arange(len(images)) % 2)
    spec = DataSpec.model_validate({"source": "npz", "path": str(folder), "nuisance": "rotation", **fields})
    return prepare(spec, Store(folder / "store"))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8)


def test_test_images_that_are_training_or_validation_images_are_found_under_any_nuisance(
    tmp_path: Path, images: np.ndarray
) -> None:
    train, test = images[:20].copy(), images[20:].copy()
    test[3], test[7] = train[4], train[19]
    dataset = prepared(tmp_path, train, test)
    assert sorted({*dataset.train.source, *dataset.validation.source}) == list(range(20))
    found = find_duplicates(dataset)
    assert found.across == (
        (OfficialImage(4, 0), OfficialImage(3, 1)),
        (OfficialImage(19, 1), OfficialImage(7, 1)),
    )
    assert found.within == 0


def test_repeats_within_training_and_validation_count_once_each(tmp_path: Path, images: np.ndarray) -> None:
    train = images[:20].copy()
    train[5] = train[6] = train[2]
    dataset = prepared(tmp_path, train, images[20:])
    assert find_duplicates(dataset).within == 2


def test_one_pixel_is_enough_to_differ(tmp_path: Path, images: np.ndarray) -> None:
    test = images[:10].copy()
    test[:, 3, 3] ^= 1
    found = find_duplicates(prepared(tmp_path, images[:20], test))
    assert (found.across, found.within) == ((), 0)
