import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gitdist.generator.munit.layers import Convolution, OutputConvolution, UpsamplingConvolution, normalise


def enlarged_then_convolved(x: Tensor, layer: Convolution) -> Tensor:
    padded = F.pad(F.interpolate(x, scale_factor=2), (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded, layer.weight, layer.bias)


def convolved(x: Tensor, layer: Convolution) -> Tensor:
    return F.conv2d(F.pad(x, (3, 3, 3, 3), mode="reflect"), layer.weight, layer.bias)


def filled(layer: Convolution) -> Convolution:
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.double()
        layer.weight.normal_(generator=rng)
        layer.bias.normal_(generator=rng)
    return layer


CASES = [
    (UpsamplingConvolution(6, 3), enlarged_then_convolved, (7, 7)),
    (UpsamplingConvolution(6, 3), enlarged_then_convolved, (2, 5)),
    (OutputConvolution(6, 3, side=4), convolved, (8, 12)),
    (OutputConvolution(6, 1, side=2), convolved, (6, 4)),
]


@pytest.mark.parametrize(("layer", "plain", "size"), CASES)
def test_folded_convolutions_and_their_gradients_equal_the_plain_ones(layer, plain, size):
    layer = filled(layer)
    x = torch.randn(2, 6, *size, dtype=torch.double, generator=torch.Generator().manual_seed(1), requires_grad=True)
    folded, expected = layer(x), plain(x, layer)
    torch.testing.assert_close(folded, expected)
    weight = torch.randn(expected.shape, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    inputs = (x, layer.weight, layer.bias)
    torch.testing.assert_close(
        torch.autograd.grad(folded, inputs, weight), torch.autograd.grad(expected, inputs, weight)
    )


def test_a_frozen_layer_gives_the_same_and_no_longer_follows_its_weights():
    layer = filled(UpsamplingConvolution(4, 2))
    x = torch.randn(1, 4, 4, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    before = layer(x)
    layer.freeze(torch.double)
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)
    with torch.no_grad():
        layer.weight.zero_()
    torch.testing.assert_close(layer(x), before, rtol=0, atol=0)


@pytest.mark.parametrize(("kernel", "stride", "size"), [(7, 1, 8), (5, 1, 8), (3, 1, 8), (4, 2, 4), (1, 1, 8)])
def test_padding_keeps_the_size_up_to_the_stride(kernel, stride, size):
    assert Convolution(3, 5, kernel, stride)(torch.zeros(2, 3, 8, 8)).shape == (2, 5, size, size)


def test_layers_compute_in_the_type_of_their_input():
    x = torch.ones(1, 4, 4, 4, dtype=torch.bfloat16)
    assert UpsamplingConvolution(4, 2)(x).dtype == torch.bfloat16


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.double, generator=torch.Generator().manual_seed(seed))


def test_adain_equals_the_formula_pixel_by_pixel():
    x, scale, shift = random(2, 3, 4, 5), random(2, 3, 1, 1, seed=1), random(2, 3, 1, 1, seed=2)
    result = normalise(x, "pixels", scale, shift)
    for n in range(2):
        for c in range(3):
            pixels = x[n, c].flatten().tolist()
            mean = sum(pixels) / 20
            std = (sum((p - mean) ** 2 for p in pixels) / 20 + 1e-5) ** 0.5
            expected = scale[n, c] * (x[n, c] - mean) / std + shift[n, c]
            torch.testing.assert_close(result[n, c], expected)


def test_layer_norm_divides_by_the_unbiased_deviation_of_the_image_plus_eps():
    x, gain, bias = random(2, 3, 4, 5), random(3, 1, 1, seed=1), random(3, 1, 1, seed=2)
    expected = torch.stack([gain * (image - image.mean()) / (image.std() + 1e-5) + bias for image in x])
    torch.testing.assert_close(normalise(x, "image", gain, bias), expected)


def test_without_affine_it_is_the_librarys_instance_norm():
    x = random(4, 3, 6, 6).float()
    torch.testing.assert_close(normalise(x, "pixels"), F.instance_norm(x, eps=1e-5))


@pytest.mark.parametrize(("over", "shape"), [("pixels", (2, 3, 1, 1)), ("image", (3, 1, 1))])
def test_gradients_equal_finite_differences(over, shape):
    x, gain, bias = random(2, 3, 3, 4), random(*shape, seed=1), random(*shape, seed=2)
    inputs = tuple(tensor.requires_grad_() for tensor in (x, gain, bias))
    assert torch.autograd.gradcheck(lambda *args: normalise(args[0], over, args[1], args[2]), inputs)
    assert torch.autograd.gradcheck(lambda image: normalise(image, over), (x,))


@pytest.mark.parametrize("over", ["pixels", "image"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_constant_image_stays_finite_forwards_and_backwards(over, dtype):
    x = torch.full((2, 3, 4, 4), 7.3, dtype=dtype, requires_grad=True)
    y = normalise(x, over)
    y.sum().backward()
    assert y.dtype == dtype
    assert y.isfinite().all()
    assert x.grad is not None and x.grad.isfinite().all()


def test_unknown_statistics_raise():
    with pytest.raises(AssertionError, match="channels"):
        normalise(random(1, 1, 2, 2), "channels")


def test_memory_format_is_kept():
    x = torch.randn(2, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    affine = torch.randn(2, 4, 1, 1)
    assert normalise(x, "pixels", affine, affine).is_contiguous(memory_format=torch.channels_last)
