from copy import deepcopy

import pytest
import torch

from gitdist.networks import build_classifier
from gitdist.trial.ema import EMA
from tests.trial.toys import same_weights


def steps_of(model, number, average):
    """Move weights and statistics at random and update the average; return all states so far."""
    rng = torch.Generator().manual_seed(number)
    history = []
    for _ in range(number):
        for tensor in model.state_dict().values():
            tensor.add_(torch.randn(tensor.shape, generator=rng) if tensor.is_floating_point() else 1)
        average.update()
        history.append(deepcopy(model.state_dict()))
    return history


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_the_average_of_weights_and_statistics_equals_its_formula(decay):
    model = build_classifier("resnet20", (1, 8, 8), 10)
    average = EMA(model, decay)

    history = steps_of(model, 7, average)

    shares = [decay ** (7 - step) for step in range(1, 8)]
    averaged = average.classifier.state_dict()
    assert {"conv.weight", "norm.running_mean", "norm.running_var"} < averaged.keys()
    for name, value in averaged.items():
        terms = [share * state[name].double() for share, state in zip(shares, history, strict=True)]
        expected = sum(terms) / sum(shares) if value.is_floating_point() else history[-1][name]
        assert torch.allclose(value.double(), expected.double(), atol=1e-5), name


def test_after_one_step_it_is_the_model_and_after_more_it_is_not():
    model = build_classifier("resnet20", (1, 8, 8), 10)
    average = EMA(model, 0.9)

    for number in (1, 3):
        steps_of(model, number, average)
        assert same_weights(average.classifier.state_dict(), model.state_dict()) == (number == 1)


def test_a_restored_average_continues_with_the_same_bits():
    model = build_classifier("resnet20", (1, 8, 8), 10)
    average = EMA(model, 0.9)
    steps_of(model, 3, average)
    other = EMA(model, 0.9)
    other.load_state_dict(average.state_dict())

    for each in (average, other):
        each.update()

    assert same_weights(average.classifier.state_dict(), other.classifier.state_dict())
