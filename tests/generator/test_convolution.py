import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gitdist.generator.convolution import Convolution, OutputConvolution, UpsamplingConvolution


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
