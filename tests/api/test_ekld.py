import math

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from torch import nn
from torch.nn import functional

from gitdist import Generator, ekld
from gitdist.device import Compute
from gitdist.errors import GitdistError
from gitdist.generator.oracle import OracleGenerator
from gitdist.store import Store
from gitdist.trial.ekld import EkldRequest, ekld_set
from gitdist.trial.evaluation import evaluate


class Linear(nn.Module):
    """Logits of float images, with layers that behave otherwise in training."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.drop, self.head = nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 4)

    def forward(self, images):
        assert images.dtype == self.head.weight.dtype
        return 5 * self.head(self.drop(self.norm(images.flatten(1))))


MODEL = Linear()
IMAGES = torch.rand(40, 1, 3, 4, generator=torch.Generator().manual_seed(1))
LABELS = np.repeat(np.arange(4), [20, 12, 6, 2])


def shade(images):
    return images * (0.5 + 0.5 * torch.rand(len(images), 1, 1, 1, device=images.device))


def mirror(images):
    return images.flip(3)


def by_the_formula(model, images, transformed):
    """KL(P(.|x) || P(.|x')) of each image."""
    model = model.eval()
    with torch.no_grad():
        log_p, log_q = (torch.log_softmax(model(batch).double(), 1) for batch in (images, transformed))
    return functional.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1).numpy()


def test_it_equals_the_formula_overall_and_per_class():
    values = by_the_formula(Linear(), IMAGES, mirror(IMAGES))

    found = ekld(MODEL, IMAGES, mirror, LABELS, transformations=3, batch_size=7)

    assert found.per_image == pytest.approx(values, rel=1e-9)
    means = [values[LABELS == label].mean() for label in range(4)]
    assert found.per_class == pytest.approx(means, rel=1e-9) and found.value == pytest.approx(np.mean(means), rel=1e-9)
    assert ekld(MODEL, IMAGES, mirror).value == pytest.approx(values.mean(), rel=1e-9)


def test_it_is_what_a_trial_measures(digits):
    prepared = digits.prepared
    request = EkldRequest(split="validation", images_per_class=3, transformations=4, seed=0)
    pairs = ekld_set(prepared, request, Store(prepared.directory.parents[1]))
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    measured = evaluate(network, prepared.validation, pairs, prepared, Compute.resolve("float32", "cpu"))
    mean, std = prepared.mean[0], prepared.std[0]
    numbers = iter(range(4))

    found = ekld(
        lambda_module(lambda images: network((images / 255 - mean) / std)),
        torch.tensor(pairs.images),
        lambda images: torch.tensor(pairs.transformed[:, next(numbers)]),
        pairs.labels,
        transformations=4,
    )

    assert found.value == pytest.approx(measured.scalars["ekld"], rel=1e-5)
    assert found.standard_error == pytest.approx(measured.standard_errors["ekld"], rel=1e-5)
    assert found.per_class == pytest.approx(measured.class_values["ekld_per_class"], rel=1e-5)


def lambda_module(function):
    class Module(nn.Module):
        def forward(self, images):
            return function(images)

    return Module()


def test_without_labels_the_standard_error_is_that_of_a_mean():
    found = ekld(MODEL, IMAGES, shade, transformations=5)

    assert found.standard_error == pytest.approx(found.per_image.std(ddof=1) / math.sqrt(40), rel=1e-12)
    assert found.per_class is None and found.per_class_standard_error is None


def test_the_standard_errors_agree_with_a_bootstrap_of_images():
    images = torch.rand(400, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    labels = np.repeat(np.arange(4), [200, 100, 60, 40])
    found = ekld(MODEL, images, shade, labels, transformations=4)
    of_class = [found.per_image[labels == label] for label in range(4)]

    def spread(statistic, *samples):
        return bootstrap(
            samples,
            statistic,
            n_resamples=4000,
            vectorized=True,
            paired=False,
            method="basic",
            rng=np.random.default_rng(0),
        ).standard_error

    # 4,000 resamples give it within 4.5 % (four of their own standard errors), and a bootstrap lacks n / (n - 1).
    overall = spread(lambda *parts, axis: sum(part.mean(axis) for part in parts) / 4, *of_class)
    assert found.standard_error == pytest.approx(overall, rel=0.06)
    for label in range(4):
        one = spread(lambda part, axis: part.mean(axis), of_class[label])
        assert found.per_class_standard_error[label] == pytest.approx(one, rel=0.08)


def test_the_standard_error_is_the_spread_over_samples_of_images_and_transformations():
    """95 % intervals of 300 samples of 60 images cover the mean of many images about as often."""
    rng = torch.Generator().manual_seed(3)
    images = torch.rand(18_000, 1, 3, 4, generator=rng)
    truth = ekld(MODEL, images, shade, transformations=8, batch_size=18_000).value

    covered = 0
    for number in range(300):
        found = ekld(MODEL, images[60 * number :][:60], shade, transformations=2, seed=number)
        covered += abs(found.value - truth) <= 1.96 * found.standard_error

    assert 0.88 <= covered / 300 <= 0.99  # skewed values cover a little less than 95 %


def test_grouped_images_are_not_independent():
    groups = np.arange(40) // 4
    copies = IMAGES[::4].repeat_interleave(4, 0)  # each group is one image four times

    found = ekld(MODEL, copies, mirror, groups=groups)
    of_ten = ekld(MODEL, IMAGES[::4], mirror)

    assert found.standard_error == pytest.approx(of_ten.standard_error, rel=1e-9)
    assert ekld(MODEL, copies, mirror).standard_error < 0.6 * found.standard_error


def test_a_class_of_one_image_has_no_standard_error_but_counts():
    found = ekld(MODEL, IMAGES[:5], mirror, [0, 0, 1, 1, 3])

    assert np.isnan(found.per_class_standard_error).tolist() == [False, False, True, True]
    assert np.isnan(found.per_class).tolist() == [False, False, True, False]
    assert found.standard_error > 0
    assert math.isnan(ekld(MODEL, IMAGES[:1], mirror).standard_error)


def test_an_invariant_classifier_has_0():
    found = ekld(MODEL, IMAGES, lambda images: images, LABELS)

    assert found.value == 0 and found.standard_error == 0


def test_a_function_of_torchs_random_state_is_reproducible():
    first = ekld(MODEL, IMAGES, shade, batch_size=16)
    torch.manual_seed(99)
    state = torch.get_rng_state()

    assert ekld(MODEL, IMAGES, shade, batch_size=16).value == first.value
    assert torch.equal(torch.get_rng_state(), state)
    assert ekld(MODEL, IMAGES, shade, batch_size=16, seed=1).value != first.value


def test_transformations_and_batches_are_drawn_independently():
    same = IMAGES[:1].expand(30, -1, -1, -1)

    found = ekld(MODEL, same, shade, transformations=1, batch_size=5)

    assert len(set(found.per_image.tolist())) == 30
    many = ekld(MODEL, same, shade, transformations=50, batch_size=5)
    assert many.per_image.std() < 0.4 * found.per_image.std()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_model_works_in_its_own_type_and_modes_are_restored(dtype):
    model = Linear().to(dtype)
    model.train()
    model.norm.eval()  # a frozen norm in a network that trains
    before = {name: value.clone() for name, value in model.state_dict().items()}

    found = ekld(model, IMAGES.numpy(), mirror)

    assert (model.training, model.norm.training, model.drop.training) == (True, False, True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.value == pytest.approx(ekld(MODEL, IMAGES, mirror).value, rel=0.1)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("scale", [1, 255])
def test_a_generator_transforms_uint8_and_float_images(digits, munit, scale):
    train = digits.prepared.train
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    pixels = torch.tensor(train.clean[:30])
    oracle = Generator(OracleGenerator("background"), munit.image_shape)
    images, model = (
        (pixels / 255, network) if scale == 1 else (pixels, lambda_module(lambda batch: network(batch / 255)))
    )

    for generator in (munit, oracle):
        found = ekld(model, images, generator, train.labels[:30], transformations=3)
        assert found.value > 0 and np.isfinite(found.standard_error)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: ekld(MODEL, IMAGES, mirror, LABELS[:3]), "labels must be 40"),
        (lambda: ekld(MODEL, IMAGES, mirror, LABELS + 1), "below 4"),
        (lambda: ekld(MODEL, IMAGES, mirror, groups=[1]), "groups must be 40"),
        (lambda: ekld(MODEL, IMAGES[:0], mirror), "images must be at least 1"),
        (lambda: ekld(MODEL, IMAGES[0], mirror), r"\[N, C, H, W\]"),
        (lambda: ekld(MODEL, IMAGES, mirror, transformations=0), "transformations must be a whole"),
        (lambda: ekld(MODEL, IMAGES, lambda images: images[:1]), "a transformation must return"),
        (lambda: ekld(MODEL, IMAGES, mirror, batch_size=2.5), "batch_size must be a whole"),
        (lambda: ekld(MODEL.forward, IMAGES, mirror), "nn.Module"),
        (lambda: ekld(nn.Flatten(2), IMAGES, mirror), r"logits \[40, C\]"),
        (lambda: ekld(MODEL, IMAGES * float("nan"), mirror), "NaN"),
    ],
)
def test_mistakes_are_one_line(call, words):
    with pytest.raises(GitdistError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
