from pathlib import Path

import numpy as np
import pytest
import torch

from gitdist.data.dataset import prepare
from gitdist.device import Compute
from gitdist.spec import DataSpec, ProfileSpec
from gitdist.store import Store
from gitdist.trial.reference import reference_classifier

CPU = Compute.resolve("float32", "cpu")


@pytest.fixture
def data(tmp_path) -> DataSpec:
    """Two classes of 8x8 images, a dark and a bright one, with a long tail on top."""
    labels = np.arange(60) % 2
    images = (labels[:, None, None] * 150 + np.random.default_rng(0).integers(0, 60, (60, 8, 8))).astype(np.uint8)
    for name in ("train.npz", "test.npz"):
        np.savez(tmp_path / name, images=images, labels=labels)
    profile = ProfileSpec(kind="step", largest=20, factor=0.1)
    return DataSpec(source="npz", path=str(tmp_path), profile=profile)


def test_it_learns_from_all_images_but_those_that_the_study_validates_on(data, tmp_path):
    store, rows = Store(tmp_path / "store"), []
    reference = reference_classifier(
        data, "resnet20", 3, store, CPU, lambda row, total: rows.append((row.epoch, total))
    )
    assert rows == [(1, 3), (2, 3), (3, 3)]
    study, learnt = prepare(data, store), reference.dataset
    assert study.class_sizes.tolist() == [20, 2] and learnt.class_sizes.tolist() == [24, 24]
    assert np.array_equal(learnt.validation.source, study.validation.source)
    assert not set(learnt.train.source) & set(study.validation.source)


def test_it_is_trained_once(data, tmp_path):
    store, rows = Store(tmp_path / "store"), []
    first, again = (
        reference_classifier(data, "resnet20", 2, store, CPU, lambda row, total: rows.append(row)) for _ in range(2)
    )
    assert len(rows) == 2
    weights = (reference.model.state_dict().values() for reference in (first, again))
    assert all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
    reference_classifier(data, "resnet20", 1, store, CPU, lambda row, total: rows.append(row))
    assert len(rows) == 3


def test_it_is_trained_again_for_another_version_of_its_network(data, tmp_path, monkeypatch):
    store, rows = Store(tmp_path / "store"), []
    for version in ("1", "1", "2"):
        monkeypatch.setattr("tests.networks.sample_factories.small.version", version)
        reference_classifier(
            data, "tests.networks.sample_factories:small", 1, store, CPU, lambda row, total: rows.append(row)
        )
    assert len(rows) == 2


def test_without_a_number_of_epochs_it_sees_sixty_thousand_images(data, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("gitdist.trial.reference._IMAGES_SEEN", 100)
    reference = reference_classifier(
        data, "resnet20", None, Store(Path(tmp_path / "s")), CPU, lambda *row: seen.append(row)
    )
    assert reference.epochs == len(seen) == 3  # of 48 images each
