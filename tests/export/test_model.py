from dataclasses import replace

import numpy as np
import pytest
import torch

from gitdist.errors import SpecError, StoreError
from gitdist.export.model import TrainedModel
from gitdist.trial.checkpoint import load_checkpoint, load_classifier
from gitdist.trial.evaluation import Predictor
from tests.trial.toys import compute, same_weights


def evaluated(spec, digits, directory, images, precision="float32"):
    """Return the probabilities that an evaluation in a study computes."""
    device = compute(precision)
    with torch.inference_mode():
        return Predictor(load_classifier(spec, digits, directory, device), digits, device)(images).exp().numpy()


def test_probabilities_are_those_of_a_float32_evaluation_with_the_averaged_weights(model, spec, digits, directory):
    images = digits.test.images
    found = model.probabilities(images)
    assert found.dtype == np.float32 and found.shape == (len(images), 10)
    assert np.abs(found - evaluated(spec, digits, directory, images)).max() < 1e-5
    checkpoint = load_checkpoint(directory)
    state = model.module.classifier.state_dict()
    assert same_weights(state, checkpoint.average["classifier"]) and not same_weights(state, checkpoint.model)


def test_a_model_is_for_inference_and_takes_any_number_of_images(model, digits):
    assert not model.module.training and not any(weight.requires_grad for weight in model.module.parameters())
    images = digits.test.images[:300]
    together = model.probabilities(images)
    for count in (0, 1, 3):
        assert np.allclose(model.probabilities(images[:count]), together[:count], atol=1e-6)


def test_the_difference_to_bf16_is_that_of_the_validation_images(model, spec, digits, directory):
    images = digits.validation.images
    difference, count = model.bf16_difference(digits)
    assert count == len(images) == 100
    rounded = evaluated(spec, digits, directory, images, "bf16")
    assert difference == pytest.approx(np.abs(rounded - model.probabilities(images)).max(), rel=0.1)
    assert 1e-5 < difference < 0.2


def test_images_of_unknown_scale_are_refused(model, digits):
    with pytest.raises(SpecError, match="must be uint8, but they are float32"):
        model.module(torch.tensor(digits.test.images[:2]) / 255)


def test_weights_of_another_network_are_refused(spec, digits, directory):
    other = spec.model_copy(update={"network": "resnet32"})
    with pytest.raises(StoreError, match="resnet32"):
        TrainedModel.load(other, digits, directory, study="digits", trial="7")


def test_a_training_that_has_not_ended_has_no_model(spec, digits, directory):
    longer = spec.model_copy(update={"epochs": 3})
    with pytest.raises(StoreError, match="epoch 3"):
        TrainedModel.load(longer, digits, directory, study="digits", trial="7")


def test_the_metadata_says_what_goes_in_and_comes_out(model):
    assert model.metadata["class_names"] == list(model.class_names) and model.metadata["trial"] == "7"
    assert replace(model, trial="baseline").metadata["trial"] == "baseline"
