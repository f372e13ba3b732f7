import numpy as np
import pytest
import torch

from gitdist.device import Compute
from gitdist.errors import StreamError
from gitdist.generator.munit import AutoEncoder, initialise
from gitdist.generator.munit_generator import MunitGenerator


@pytest.fixture(params=["float32", "bf16"])
def generator(request, tiny) -> MunitGenerator:
    network = AutoEncoder(tiny, 1)
    initialise(network, None, torch.Generator().manual_seed(0))
    return MunitGenerator(network, tiny.style_dim, Compute.resolve(request.param, "cpu"))


@pytest.fixture
def images(digits) -> torch.Tensor:
    return torch.tensor(digits.train.images[:6])


def test_codes_are_one_row_an_image_and_draws_are_images(generator, images):
    codes = generator.encode(images, images)
    assert codes.shape == (6, 16, 7, 7)
    drawn = generator.draw(codes, np.random.default_rng(0))
    assert drawn.shape == images.shape
    assert drawn.dtype == torch.uint8
    assert drawn.is_contiguous()


def test_one_call_gives_every_code_its_own_style(generator, images):
    codes = generator.encode(images[:1], images[:1]).repeat(3, 1, 1, 1)
    first, second, third = generator.draw(codes, np.random.default_rng(0))
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)


def test_content_comes_from_the_image_not_from_the_clean_one(generator, images):
    assert torch.equal(generator.encode(images, images), generator.encode(images, torch.zeros_like(images)))
    assert not torch.equal(generator.encode(images, images), generator.encode(images.flip(0), images))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_finite_weights_that_compute_nan_are_an_error_and_no_black_images(tiny, images, precision):
    network = AutoEncoder(tiny, 1)
    initialise(network, None, torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.mlp.layers[0].weight.fill_(1e30)
        network.mlp.layers[1].weight.fill_(1e30)
    generator = MunitGenerator(network, tiny.style_dim, Compute.resolve(precision, "cpu"))
    with pytest.raises(StreamError, match="must draw finite values"):
        generator.draw(generator.encode(images, images), np.random.default_rng(0))
