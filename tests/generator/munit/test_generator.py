from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gitdist.device import Compute
from gitdist.errors import StreamError
from gitdist.generator.munit.generator import MunitGenerator, compile_decoder
from gitdist.generator.munit.networks import AutoEncoder, initialise

from_torch_itself = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")


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


def decode(codes: Tensor, styles: Tensor) -> Tensor:
    return torch.tanh(codes * styles[:, :1, None, None] + codes.mean((1, 2, 3), keepdim=True))


@pytest.mark.slow
@from_torch_itself
def test_an_image_is_the_same_in_every_batch_and_close_to_what_is_not_compiled() -> None:
    rng = torch.Generator().manual_seed(0)
    codes, styles = torch.randn(20, 4, 6, 6, generator=rng), torch.randn(20, 3, generator=rng)
    compiled = compile_decoder(decode, 8)
    whole = compiled(codes, styles)
    assert whole.shape == codes.shape
    torch.testing.assert_close(whole, decode(codes, styles))
    for part in (slice(0, 1), slice(3, 12), slice(19, 20)):
        assert torch.equal(compiled(codes[part], styles[part]), whole[part])


@from_torch_itself
def test_a_missing_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what was compiled before needs no compiler
    with (
        config.patch({"cpp.cxx": (None, "/nowhere/g++")}),
        pytest.raises(StreamError, match="InvalidCxxCompiler: .* install a C") as caught,
    ):
        compile_decoder(lambda codes, styles: codes.sin() + styles.sum(), 2)(torch.ones(2, 1, 2, 2), torch.ones(2, 3))
    assert "\n" not in str(caught.value)
