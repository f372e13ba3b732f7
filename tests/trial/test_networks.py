"""Trials of other networks than the built-in ones: randomness in layers, pretrained weights, normalisation."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gitdist.errors import SpecError
from gitdist.networks import build_classifier
from gitdist.networks.pretrained import WeightsFile
from gitdist.spec import TrialSpec
from gitdist.store import Store
from gitdist.trial.augmentation import IMAGENET, InputPipeline, input_normalisation
from gitdist.trial.checkpoint import fresh_classifier, load_checkpoint, load_classifier
from gitdist.trial.evaluation import evaluate
from gitdist.trial.stages import shared_prefix, train_in_stages
from gitdist.trial.training import train
from tests.trial.toys import assert_same_state, compute, same_weights, setting_of, short_spec, timeless, whole

VIT = {"network": "timm:test_vit", "network_options": {"patch_size": 4, "drop_rate": 0.3, "drop_path_rate": 0.3}}
PLUGIN = {"network": "tests.networks.sample_factories:small", "network_options": {"dropout": 0.5}}
RGB = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.1]}


@pytest.fixture
def weights(digits, tmp_path):
    """Weights of the transformer for RGB images of seven classes."""
    model = build_classifier(VIT["network"], (3, 8, 8), 7, options=VIT["network_options"])
    save_file(model.state_dict(), tmp_path / "vit.safetensors")
    return WeightsFile.open(tmp_path / "vit.safetensors")


@pytest.mark.parametrize("fields", [VIT, PLUGIN], ids=["timm", "plugin"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_layers_that_draw_resume_bit_identically_and_leave_the_global_state_alone(digits, tmp_path, fields, precision):
    spec = short_spec(**fields, epochs=3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    rows, expected = whole(spec, digits, tmp_path / "whole", precision)
    assert torch.equal(before, torch.get_rng_state())

    for _ in range(spec.epochs):
        torch.manual_seed(2)
        next(train(spec, digits, setting_of(digits, tmp_path / "parts", precision)))

    found = load_checkpoint(tmp_path / "parts")
    assert timeless(found.rows) == rows
    assert_same_state(found, expected)
    still = {**fields, "network_options": {"patch_size": 4} if fields is VIT else {}}
    assert whole(short_spec(**still, epochs=3), digits, tmp_path / "still", precision)[0] != rows


def test_a_pretrained_trial_begins_with_the_weights_and_a_prefix_shares_them(digits, tmp_path, weights):
    spec = short_spec(**VIT, pretrained=str(weights.path), switch_epoch=2)
    begun = fresh_classifier(spec, digits, weights)
    assert torch.equal(begun.blocks[1].mlp.fc1.weight, load_file(weights.path)["blocks.1.mlp.fc1.weight"])
    assert begun.head.out_features == 10
    rows, expected = whole(spec, digits, tmp_path / "alone", weights=weights)
    scratch, _ = whole(spec.model_copy(update={"pretrained": False}), digits, tmp_path / "scratch")
    assert rows != scratch

    store = Store(tmp_path / "store")
    for name in ("first", "second"):
        setting = setting_of(digits, tmp_path / name, weights=weights, trained_by=name)
        (tmp_path / name).mkdir()
        shared = [row for rows in train_in_stages(spec, digits, setting, store) for row in rows]
        assert timeless(shared) == rows
        assert_same_state(load_checkpoint(tmp_path / name), expected)
    assert [row.trained_by for row in shared] == ["first", "first", "second", "second"]
    model = load_classifier(spec, digits, tmp_path / "alone", compute())  # without the file
    assert same_weights(model.state_dict(), expected.model)


def test_the_content_of_the_weights_names_a_prefix_and_not_their_path(digits, tmp_path, weights):
    def key(path):
        spec = short_spec(**VIT, pretrained=str(path), switch_epoch=2)
        setting = setting_of(digits, weights=WeightsFile.open(path))
        return shared_prefix(spec).determined_by(digits, setting)

    moved, other = tmp_path / "moved", tmp_path / "other"
    moved.write_bytes(weights.path.read_bytes())
    other.write_bytes(weights.path.read_bytes()[:-4] + b"\0\0\0\1")

    assert key(moved) == key(weights.path) != key(other)


def test_a_pretrained_trial_does_not_begin_without_its_weights(digits, tmp_path):
    spec = short_spec(**VIT, pretrained=str(tmp_path / "missing"))
    with pytest.raises(SpecError, match="came without weights"):
        next(train(spec, digits, setting_of(digits)))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"normalize": "data"}, None),
        ({**VIT, "normalize": None}, None),
        ({**VIT, "pretrained": "/a", "normalize": "data"}, None),
        ({"network": "resnet18", "pretrained": "/a"}, None),
        ({**VIT, "pretrained": "/a"}, (0.5, 0.5)),  # what timm states for this network
        ({"network": "torchvision:resnet18", "pretrained": "/a"}, (0.449, 0.226)),
        ({"normalize": "imagenet"}, (0.449, 0.226)),
        ({"normalize": {"mean": [0.5], "std": [0.25]}}, (0.5, 0.25)),
    ],
)
def test_inputs_are_normalised_as_the_trial_says(digits, fields, expected):
    found = input_normalisation(TrialSpec.model_validate(fields), digits)

    assert [len(values) for values in found] == [1, 1]
    if expected is None:
        assert found == (digits.mean, digits.std)
    else:
        assert [values[0] for values in found] == pytest.approx(expected)


def test_numbers_per_channel_are_kept_for_images_with_these_channels(digits):
    rgb = replace(digits, image_shape=(3, 8, 8))

    assert input_normalisation(TrialSpec(normalize="imagenet"), rgb) == IMAGENET
    own = TrialSpec.model_validate({"normalize": RGB})
    assert input_normalisation(own, rgb) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
    with pytest.raises(SpecError, match="trial.normalize.mean must have one number, .* of the 1 channels"):
        input_normalisation(own, digits)


def test_training_and_evaluation_normalise_alike(digits, tmp_path):
    small = {**PLUGIN, "network_options": {"width": 32}}
    spec = short_spec(**small, normalize={"mean": [0.9], "std": [0.1]}, epochs=2, switch_epoch=0)
    rows, _ = whole(spec, digits, tmp_path)
    model = load_classifier(spec, digits, tmp_path, compute())
    images = torch.tensor(digits.train.images[:4])
    own = TrialSpec(normalize=spec.normalize)

    inputs = InputPipeline(own, digits, torch.device("cpu")).for_epoch(1, 4)(images, 0)
    evaluated = evaluate(model, digits.validation, None, digits, compute(), spec).scalars
    otherwise = evaluate(model, digits.validation, None, digits, compute()).scalars

    assert torch.allclose(inputs, (images / 255 - 0.9) / 0.1, atol=1e-5)
    assert evaluated["balanced_accuracy"] == rows[-1]["val/balanced_accuracy"] != otherwise["balanced_accuracy"]
