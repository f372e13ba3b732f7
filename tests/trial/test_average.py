import pytest
import torch

from gitdist.trial.average import WeightAverage
from gitdist.trial.classifier import build_classifier


def steps_of(model, number, average):
    """Move weights and statistics at random and let the average take them in; return all weights so far."""
    rng = torch.Generator().manual_seed(number)
    history = []
    for _ in range(number):
        for weight in model.parameters():
            weight.data.add_(torch.randn(weight.shape, generator=rng))
        model.norm.running_mean.add_(1)
        model.norm.num_batches_tracked.add_(1)
        average.update()
        history.append([weight.detach().clone() for weight in model.parameters()])
    return history


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_the_average_equals_its_formula(decay):
    model = build_classifier("resnet20", 1, 10)
    average = WeightAverage(model, decay)

    history = steps_of(model, 7, average)

    shares = [decay ** (7 - step) for step in range(1, 8)]
    for index, averaged in enumerate(average.classifier.parameters()):
        terms = [share * weights[index].double() for share, weights in zip(shares, history, strict=True)]
        assert torch.allclose(averaged.double(), sum(terms) / sum(shares), atol=1e-5)


def test_after_one_step_it_is_the_weights_and_always_has_the_newest_statistics():
    model = build_classifier("resnet20", 1, 10)
    average = WeightAverage(model, 0.9)

    for number in (1, 3):
        history = steps_of(model, number, average)
        averaged = average.classifier
        assert torch.equal(averaged.conv.weight, history[0][0]) == (number == 1)
        assert torch.equal(averaged.norm.running_mean, model.norm.running_mean)
        assert averaged.norm.num_batches_tracked == model.norm.num_batches_tracked


def test_a_restored_average_goes_on_with_the_same_bits():
    model = build_classifier("resnet20", 1, 10)
    average = WeightAverage(model, 0.9)
    steps_of(model, 3, average)
    other = WeightAverage(model, 0.9)
    other.restore(average.state())

    for each in (average, other):
        each.update()

    assert all(
        torch.equal(one, two)
        for one, two in zip(average.classifier.parameters(), other.classifier.parameters(), strict=True)
    )
