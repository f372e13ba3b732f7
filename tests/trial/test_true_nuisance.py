"""The paper's oracle: every training sample of every epoch is its untransformed image under a fresh draw of T."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from gitdist.data.dataset import Dataset
from gitdist.data.nuisance import transform
from gitdist.errors import SpecError
from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec
from gitdist.store import Store
from gitdist.trial.augment import Normaliser
from gitdist.trial.checkpoint import load_checkpoint
from gitdist.trial.classifier import build_classifier
from gitdist.trial.epoch import EpochTrainer
from gitdist.trial.pipeline import Pipeline
from gitdist.trial.plan import epoch_rows, replaced_rows
from gitdist.trial.stages import train_in_stages
from gitdist.trial.training import TrialSetting, train
from tests.trial.toys import (
    assert_same_state,
    compute,
    setting_of,
    short_spec,
    small_digits,
    stream_of,
    timeless,
    whole,
)

NUISANCES = ("rotation", "background", "dilation-erosion")


def oracle(**fields) -> TrialSpec:
    plain = {"sampler": "instance", "fraction": 0.0, "crop_padding": 0, "flip": False, "true_nuisance": True}
    return short_spec(**{**plain, **fields})


def inputs_of(spec: TrialSpec, dataset: Dataset, epochs: int) -> list[Tensor]:
    """Return the inputs of the network in each epoch, ``[N, C, H, W]``, without training anything from them."""
    trainer = EpochTrainer(spec, dataset, stream_of(dataset), build_classifier("resnet20", 1, 10), compute())
    seen: list[Tensor] = []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    result = []
    for epoch in range(1, epochs + 1):
        trainer.run(epoch)
        result.append(torch.cat(seen))
        seen.clear()
    return result


@pytest.fixture(scope="module", params=NUISANCES)
def data(request, tmp_path_factory) -> Iterator[Dataset]:
    root = tmp_path_factory.mktemp(request.param)
    return small_digits(root, request.param, kind="exponential", largest=30, factor=0.2)


@pytest.mark.parametrize("batch_size", [32, 50])
def test_every_sample_of_every_epoch_is_its_clean_image_under_a_fresh_draw(data, batch_size):
    spec = oracle(batch_size=batch_size, switch_epoch=1, epochs=3)
    seen = inputs_of(spec, data, epochs=3)
    for epoch, inputs in enumerate(seen, 1):
        rows = epoch_rows(spec, data.train.labels, data.class_sizes, epoch)
        assert np.array_equal(np.sort(rows), np.arange(len(rows)))  # ERM: each image once, after the switch too
        drawn = transform(data.nuisance, data.train.clean[rows], numpy_rng(spec.seed, "trial/nuisance", epoch))
        assert torch.equal(inputs, Normaliser(data.mean, data.std)(torch.from_numpy(drawn)))


def test_draws_crop_and_flip_come_after_the_true_nuisance(digits):
    spec = oracle(sampler="class-balanced", fraction=0.5, switch_epoch=0, epochs=1, crop_padding=1, flip=True)
    (seen,) = inputs_of(spec, digits, epochs=1)
    labels = digits.train.labels
    rows = epoch_rows(spec, labels, digits.class_sizes, 1)
    images = transform(digits.nuisance, digits.train.clean[rows], numpy_rng(spec.seed, "trial/nuisance", 1))
    mask = replaced_rows(spec, labels[rows], digits.class_sizes, 1)
    stream = stream_of(digits)
    stream.prefetch(np.flatnonzero(digits.class_sizes < spec.threshold))
    for start in range(0, len(rows), spec.batch_size):
        batch = slice(start, start + spec.batch_size)
        images[batch][mask[batch]] = stream.take(labels[rows][batch][mask[batch]])
    expected = Pipeline(spec, digits, torch.device("cpu")).epoch(1, len(rows))(torch.from_numpy(images), 0)
    assert mask.any() and not mask.all() and torch.equal(seen, expected)


def test_it_never_touches_the_stream(digits):
    assert [row["draws"] for row in train(oracle(epochs=2), digits, setting_of(digits, stream=None))] == [0, 0]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_resumed_training_is_bit_identical_to_uninterrupted(data, tmp_path, precision):
    spec = oracle(fraction=0.5, mixup_alpha=0.4, randaugment_ops=1, crop_padding=1, flip=True, epochs=3)
    rows, expected = whole(spec, data, tmp_path / "whole", precision)
    for _ in range(spec.epochs):
        next(train(spec, data, setting_of(data, tmp_path / "parts", precision)))
    found = load_checkpoint(tmp_path / "parts")
    assert timeless(found.rows) == rows
    assert_same_state(found, expected)


def test_its_prefix_is_not_that_of_plain_training(digits, tmp_path):
    store = Store(tmp_path / "store")
    for number, spec in enumerate([oracle(true_nuisance=False, switch_epoch=2), oracle(switch_epoch=2)]):
        alone, _ = whole(spec, digits, tmp_path / f"alone{number}")
        (tmp_path / str(number)).mkdir()
        staged = train_in_stages(spec, digits, setting_of(digits, tmp_path / str(number)), store)
        assert timeless([row for rows in staged for row in rows]) == alone
    assert len(list((store.root / "prefix").iterdir())) == 2


def test_a_data_set_without_a_known_nuisance_is_refused(tmp_path):
    plain = small_digits(tmp_path, "none", kind="exponential", largest=20, factor=0.5)
    with pytest.raises(SpecError, match="trial.true_nuisance needs .* data.nuisance is 'none'"):
        next(train(oracle(), plain, TrialSetting(compute=compute())))
