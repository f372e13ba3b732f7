"""Instance norm, adaptive instance norm and MUNIT's layer norm as one differentiable function.

The statistics are taken in float32 in two passes, whatever the input's type: bf16 sums would lose the variance of an
image with a bright background. ``torch.var_mean`` over the pixels of a channels_last tensor took ten times as long.
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPS = 1e-5

Over = Literal["pixels", "image"]


def normalise(x: Tensor, over: Over, gain: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Return ``gain * (x - mean) / deviation + bias`` in the type and memory format of ``x``.

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
        wide = torch.promote_types(x.dtype, torch.float32)
        dims = _dims(over)
        y = x.to(wide, copy=True)
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
    return (2, 3) if over == "pixels" else (1, 2, 3)


def _inverse_deviation(variance: Tensor, over: Over, size: int) -> tuple[Tensor, Tensor]:
    """1 / deviation, and deviation * d(deviation)/d(variance) * 2: how much of y the gradient takes away."""
    if over == "pixels":
        inverse = (variance + EPS).rsqrt()
        return inverse, torch.ones_like(inverse)
    correction = math.sqrt(size / (size - 1))
    std = variance.sqrt()
    deviation = correction * std + EPS
    return deviation.reciprocal(), correction * deviation / std.clamp_min(EPS)
