import importlib
from copy import deepcopy

import pytest
import torch

from gitdist.data.randaugment import RandAugment, draw_operations
from gitdist.errors import TrialFailedError
from gitdist.seeds import numpy_rng, torch_rng
from gitdist.spec import TrialSpec
from gitdist.trial.augment import Normaliser, draw_placement, place
from gitdist.trial.classifier import build_classifier
from gitdist.trial.epoch import EpochTrainer, learning_rate
from gitdist.trial.losses import build_loss
from gitdist.trial.mixing import replace_mask
from gitdist.trial.mixup import epoch_mixup
from gitdist.trial.pipeline import Pipeline
from gitdist.trial.plan import epoch_rows
from gitdist.trial.sampling import epoch_indices
from tests.trial.toys import (
    IMPORTS_INDUCTOR,
    assert_same_state,
    compute,
    same_weights,
    short_spec,
    stream_of,
    whole,
)


def trainer_of(spec, dataset):
    model = build_classifier("resnet20", 1, 10, rng=torch_rng(spec.seed, "trial/weights"))
    return EpochTrainer(spec, dataset, stream_of(dataset), model, compute())


def test_learning_rate_warms_up_and_steps_down_after_the_milestones():
    spec = TrialSpec(lr=0.1, lr_warmup_epochs=5, lr_milestones=(160, 180), lr_decay=0.01, epochs=200)

    rates = [learning_rate(spec, epoch) for epoch in (1, 4, 5, 6, 160, 161, 180, 181, 200)]

    assert rates == pytest.approx([0.02, 0.08, 0.1, 0.1, 0.1, 1e-3, 1e-3, 1e-5, 1e-5])


def test_without_warm_up_the_first_epoch_has_the_full_rate():
    assert learning_rate(TrialSpec(lr=0.1, lr_warmup_epochs=0), 1) == 0.1


def test_the_network_sees_mixed_then_cropped_and_flipped_then_randaugmented_then_normalised_images(digits):
    spec = short_spec(switch_epoch=0, randaugment_ops=2, randaugment_magnitude=12, batch_size=64)
    trainer, seen = trainer_of(spec, digits), []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))

    trainer.run(1)

    sizes, train = digits.class_sizes, digits.train
    rngs = {name: numpy_rng(spec.seed, f"trial/{name}", 1) for name in ("sample", "mixing", "placement", "randaugment")}
    rows = epoch_indices(spec.sampler, train.labels, sizes, spec.effective_beta, rngs["sample"])
    labels, images = train.labels[rows[:64]], train.images[rows[:64]]
    mask = replace_mask(labels, sizes, spec.threshold, spec.threshold_kind, spec.fraction, rngs["mixing"])
    images[mask] = stream_of(digits).take(labels[mask])
    placement = draw_placement(len(rows), spec.crop_padding, spec.flip, rngs["placement"]).rows(0, 64)
    codes = draw_operations(len(rows), 2, rngs["randaugment"])[:, :64]
    pixels = RandAugment(12, digits.image_shape)(place(torch.from_numpy(images), placement), codes)
    assert mask.any() and torch.equal(seen[0], Normaliser(digits.mean, digits.std)(pixels))


@pytest.mark.parametrize("loss", ["ldam", "focal", "balanced-softmax"])
def test_a_step_trains_on_blended_inputs_with_the_blended_and_weighted_loss(digits, loss):
    spec = short_spec(loss=loss, mixup_alpha=0.4, class_weights="inverse", weights_deferred=False, batch_size=1000)
    trainer, seen = trainer_of(spec, digits), []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    fresh = deepcopy(trainer.model)

    result = trainer.run(1)

    sizes, count = digits.class_sizes, len(digits.train.labels)
    rows = epoch_rows(spec, digits.train.labels, sizes, 1)
    inputs = Pipeline(spec, digits, torch.device("cpu")).epoch(1, count)(torch.from_numpy(digits.train.images[rows]), 0)
    plain = build_loss(spec, sizes, 1)
    inputs, blended = epoch_mixup(spec, 1, count)(inputs, plain, 0)
    assert len(seen) == 1 and torch.equal(seen[0], inputs)
    expected = blended(fresh.train()(inputs), torch.from_numpy(digits.train.labels[rows]))
    assert result.loss == pytest.approx(expected.item(), rel=1e-6)


def test_randaugment_changes_training_and_goes_on_after_an_interruption(digits, tmp_path):
    spec = short_spec(epochs=2, randaugment_ops=2)
    without, _ = whole(short_spec(epochs=2), digits, tmp_path / "without")
    rows, state = whole(spec, digits, tmp_path / "whole")
    whole(spec, digits, tmp_path / "parts", stop_after=1)
    rest, resumed = whole(spec, digits, tmp_path / "parts")

    assert rest == rows[1:]
    assert_same_state(resumed, state)
    assert [row["draws"] for row in rows] == [row["draws"] for row in without]
    assert rows[0]["train/loss"] != without[0]["train/loss"]


def test_without_operations_the_magnitude_moves_nothing(digits, tmp_path):
    first, second = (
        whole(short_spec(epochs=1, randaugment_magnitude=magnitude), digits, tmp_path / str(magnitude))
        for magnitude in (9, 30)
    )

    assert first[0] == second[0] and same_weights(first[1].model, second[1].model)


@IMPORTS_INDUCTOR
def test_a_missing_compiler_ends_a_compiled_trial_with_one_line(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what was compiled before needs no compiler
    config = importlib.import_module("torch._inductor.config")

    with (
        config.patch({"cpp.cxx": (None, "/nowhere/c++")}),
        pytest.raises(TrialFailedError, match="/nowhere/c.*set trial.compile to false") as raised,
    ):
        trainer_of(short_spec(compile=True), digits).run(1)

    assert "\n" not in str(raised.value)
