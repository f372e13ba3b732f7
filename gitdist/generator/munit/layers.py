"""MUNIT's layers: convolutions after reflection padding, two of them folded, and the norms as one function.

A kernel over an enlarged image reads every small pixel several times. Folding adds up the taps that read the same
pixel, so that one convolution over the small image gives all output phases:

    enlarge x2, 5x5 kernel, O channels      = 3x3 kernel, 4*O channels, then interleave    (9/25 of the products)
    7x7 kernel, O = 1 or 3 channels         = 10x10 kernel, stride 4, 16*O channels        (fills the vector units)

Both compute the same function of the 5x5 and 7x7 weights up to rounding. On a CPU with bf16 units they took 2.6 times
and 5 times less than the plain convolutions. Layers compute in the type of their input and keep float32 weights:
autocast would convert every reflection padding to float32 and back on a CPU.
"""

import math
from typing import Any, Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Over = Literal["pixels", "image"]

_EPS = 1e-5


class Convolution(nn.Module):
    """A convolution with bias after reflection padding that keeps the size at stride 1; its weights begin at zero."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.padding = (kernel - 1) // 2
        shape = (out_channels, in_channels, kernel, kernel)
        self.weight = nn.Parameter(torch.zeros(shape).contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self._frozen: tuple[Tensor, ...] | None = None

    def kernels(self) -> tuple[Tensor, ...]:
        """Return the weights and biases in the form in which ``forward`` applies them."""
        return self.weight, self.bias

    def freeze(self, dtype: torch.dtype) -> None:
        """Keep the present kernels in ``dtype``, for a network that is not trained further."""
        self._frozen = tuple(tensor.detach().to(dtype) for tensor in self.kernels())

    def kernels_in(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return the frozen kernels, or the present ones in ``dtype``."""
        return self._frozen or tuple(kernel.to(dtype) for kernel in self.kernels())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, out_channels, H / stride, W / stride]``."""
        weight, bias = self.kernels_in(x.dtype)
        return F.conv2d(F.pad(x, (self.padding,) * 4, mode="reflect"), weight, bias, self.stride)


class UpsamplingConvolution(Convolution):
    """Nearest-neighbour enlargement by 2, reflection padding and a 5x5 convolution, computed on the small image."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 5)

    def kernels(self) -> tuple[Tensor, ...]:
        """Return the folded kernel ``[4 * O, C, 3, 3]`` and its bias, and the taps that reach over the edges.

        Those are ``[2 * O, C, 1, 5]`` (top, bottom) and ``[2 * O, C, 5, 1]`` (left, right).
        """
        folded = _fold_pairs(_fold_pairs(self.weight, -1), -2).flatten(0, 2)
        rows = torch.cat((self.weight[:, :, :1], self.weight[:, :, 4:]))
        columns = torch.cat((self.weight[..., :1], self.weight[..., 4:]))
        return folded.contiguous(memory_format=torch.channels_last), self.bias.repeat(4), rows, columns

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, out_channels, 2 * H, 2 * W]``."""
        weight, bias, rows, columns = self.kernels_in(x.dtype)
        # The folded kernel reads a pixel beyond the edge as a repetition of the edge. Reflection differs in one tap of
        # the outermost output rows and columns only: it reads the edge's neighbour instead of the edge.
        repeated = torch.cat((x[:, :, :1], x, x[:, :, -1:]), 2)
        repeated = torch.cat((repeated[..., :1], repeated, repeated[..., -1:]), 3)
        y = _interleave(F.conv2d(repeated, weight, bias), 2)
        beyond_rows = _edge_steps(x, 2).repeat_interleave(2, 3)
        beyond_columns = _edge_steps(repeated[..., 1:-1], 3).repeat_interleave(2, 2)
        extra_rows = F.conv2d(F.pad(beyond_rows, (2, 2, 0, 0), mode="reflect"), rows, groups=2)
        extra_columns = F.conv2d(beyond_columns, columns, groups=2)
        top, bottom = extra_rows.squeeze(2).chunk(2, 1)
        left, right = extra_columns.squeeze(3).chunk(2, 1)
        y[:, :, 0] += top
        y[:, :, -1] += bottom
        y[..., 0] += left
        y[..., -1] += right
        return y


class OutputConvolution(Convolution):
    """A 7x7 convolution to few channels, computed for a square of output pixels at once."""

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        """Create the layer with all weights zero; ``side`` of the square in pixels divides the sides of every image."""
        super().__init__(in_channels, out_channels, 7, stride=side)

    def kernels(self) -> tuple[Tensor, ...]:
        """Return the kernel ``[side^2 * O, C, 6 + side, 6 + side]`` (row, column, channel) and its bias."""
        side, kernel = self.stride, self.weight.shape[-1]
        windows = F.pad(self.weight, (side - 1,) * 4)
        for dim in (2, 3):
            windows = windows.unfold(dim, kernel + side - 1, 1)
        weight = windows.flip(2, 3).permute(2, 3, 0, 1, 4, 5).flatten(0, 2)
        return weight.contiguous(memory_format=torch.channels_last), self.bias.repeat(side**2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, out_channels, H, W]``."""
        return _interleave(super().forward(x), self.stride)


def _interleave(x: Tensor, side: int) -> Tensor:
    """Spread channels ``[N, side * side * O, H, W]`` (row, column, channel) over ``[N, O, side * H, side * W]``."""
    num, channels, height, width = x.shape
    squares = x.permute(0, 2, 3, 1).reshape(num, height, width, side, side, channels // side**2)
    return squares.transpose(2, 3).reshape(num, side * height, side * width, -1).permute(0, 3, 1, 2)


def _fold_pairs(weight: Tensor, dim: int) -> Tensor:
    """Sum the 5 taps along ``dim`` that read the same small pixel: ``[2, ...]``, 3 taps per output phase."""
    a, b, c, d, e = weight.unbind(dim)
    return torch.stack((torch.stack((a + b, c + d, e), dim), torch.stack((a, b + c, d + e), dim)))


def _edge_steps(x: Tensor, dim: int) -> Tensor:
    """The differences from the first and the last row (or column) to the next inner one, as ``2 * C`` channels."""
    size = x.shape[dim]
    first = x.narrow(dim, 1, 1) - x.narrow(dim, 0, 1)
    last = x.narrow(dim, size - 2, 1) - x.narrow(dim, size - 1, 1)
    return torch.cat((first, last), 1)


def normalise(x: Tensor, over: Over, gain: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Return ``gain * (x - mean) / deviation + bias`` in the type and memory format of ``x``.

    The statistics are computed in float32 in two passes, whatever the input's type: bf16 sums would lose the variance
    of an image with a bright background. ``torch.var_mean`` over the pixels of a channels_last tensor took ten times as
    long.

    Args:
        x: float ``[N, C, H, W]``.
        over: ``"pixels"``: statistics of each image and channel, deviation ``sqrt(biased variance + 1e-5)`` (instance
            norm; with gain and bias from a style it is AdaIN, Huang & Belongie 2017);
            ``"image"``: statistics of each image, deviation ``unbiased standard deviation + 1e-5`` (MUNIT's decoder).
        gain: float, broadcastable to ``[N, C, 1, 1]``; None = 1.
        bias: the same for the shift; None = 0. Given with ``gain`` or not at all.
    """
    result: Tensor = _Normalise.apply(x, gain, bias, over)  # type: ignore[no-untyped-call]
    return result


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor | None, bias: Tensor | None, over: Over) -> Tensor:
        dims = _dims(over)
        y = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
        mean = y.mean(dims, keepdim=True)
        y.sub_(mean)
        variance = y.square().mean(dims, keepdim=True)
        inverse, slope = _inverse_deviation(variance, over, x[0].numel())
        ctx.save_for_backward(x, gain, mean, inverse, slope)
        ctx.over, ctx.shapes = over, (gain is not None and gain.shape, bias is not None and bias.shape)
        y.mul_(inverse if gain is None else inverse * gain)
        if bias is not None:
            y.add_(bias)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, gain, mean, inverse, slope = ctx.saved_tensors
        gain_shape, bias_shape = ctx.shapes
        dims = _dims(ctx.over)
        g = gradient.to(mean.dtype)
        y = (x.to(mean.dtype) - mean).mul_(inverse)
        gy = g * y
        gain_gradient = gy.sum_to_size(gain_shape) if gain_shape else None
        bias_gradient = g.sum_to_size(bias_shape) if bias_shape else None
        if gain is not None:
            g, gy = g * gain, gy * gain
        y = y.mul_(gy.mean(dims, keepdim=True) * slope)
        dx = (g - g.mean(dims, keepdim=True)).sub_(y).mul_(inverse)
        return dx.to(x.dtype), gain_gradient, bias_gradient, None


def _dims(over: Over) -> tuple[int, ...]:
    match over:
        case "pixels":
            return (2, 3)
        case "image":
            return (1, 2, 3)
        case unknown:
            assert_never(unknown)


def _inverse_deviation(variance: Tensor, over: Over, size: int) -> tuple[Tensor, Tensor]:
    """1 / deviation, and deviation * d(deviation)/d(variance) * 2: how much of y the gradient subtracts."""
    if over == "pixels":
        inverse = (variance + _EPS).rsqrt()
        return inverse, torch.ones_like(inverse)
    correction = math.sqrt(size / (size - 1))
    std = variance.sqrt()
    deviation = correction * std + _EPS
    return deviation.reciprocal(), correction * deviation / std.clamp_min(_EPS)
