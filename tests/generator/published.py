"""The published checkpoint layout and what a network in it computes, after the facts alone: no code of gitdist.

Everything reads the checkpoint's dictionary by its keys, one formula a layer, as slowly as it likes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


def random_state(
    seed: int, *, channels: int, dim: int, depth: int, num_res: int, mlp_dim: int, style_dim: int
) -> State:
    """An auto-encoder's weights as the authors lay them out, none of them at a value that would hide a mistake."""
    rng = torch.Generator().manual_seed(seed)
    state: State = {}

    def add(name: str, *shape: int, scale: float | None = None, about: float = 0.0) -> None:
        inputs = torch.Size(shape[1:]).numel()
        state[name] = about + torch.randn(shape, generator=rng) * (scale or (2 / inputs) ** 0.5)

    def conv(name: str, out: int, inner: int, side: int) -> None:
        add(f"{name}.weight", out, inner, side, side)
        add(f"{name}.bias", out, scale=0.1)

    style = [(dim, channels, 7), (2 * dim, dim, 4), (4 * dim, 2 * dim, 4), (4 * dim, 4 * dim, 4), (4 * dim, 4 * dim, 4)]
    for index, sizes in enumerate(style):
        conv(f"enc_style.model.{index}.conv", *sizes)
    conv("enc_style.model.6", style_dim, 4 * dim, 1)
    conv("enc_content.model.0.conv", dim, channels, 7)
    for index in range(depth):
        conv(f"enc_content.model.{index + 1}.conv", dim * 2 ** (index + 1), dim * 2**index, 4)
    wide = dim * 2**depth
    for index in range(num_res):
        for layer in (0, 1):
            conv(f"enc_content.model.{depth + 1}.model.{index}.model.{layer}.conv", wide, wide, 3)
            conv(f"dec.model.0.model.{index}.model.{layer}.conv", wide, wide, 3)
            for statistic in ("mean", "var"):
                add(f"dec.model.0.model.{index}.model.{layer}.norm.running_{statistic}", wide, scale=1.0)
    for index in range(depth):
        out = wide // 2 ** (index + 1)
        conv(f"dec.model.{2 * index + 2}.conv", out, 2 * out, 5)
        add(f"dec.model.{2 * index + 2}.norm.gamma", out, scale=0.3, about=1.0)
        add(f"dec.model.{2 * index + 2}.norm.beta", out, scale=0.3)
    conv(f"dec.model.{2 * depth + 1}.conv", channels, dim, 7)
    widths = [style_dim, mlp_dim, mlp_dim, num_res * 2 * 2 * wide]
    for index in range(3):
        add(f"mlp.model.{index}.fc.weight", widths[index + 1], widths[index])
        add(f"mlp.model.{index}.fc.bias", widths[index + 1], scale=0.3)
    return state


def convolve(state: State, name: str, x: Tensor, padding: int, stride: int = 1) -> Tensor:
    return F.conv2d(F.pad(x, (padding,) * 4, mode="reflect"), state[f"{name}.weight"], state[f"{name}.bias"], stride)


def standardise(x: Tensor) -> Tensor:
    """Instance norm: over the pixels of an image's channel, with the biased variance."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) / (((x - mean) ** 2).mean((2, 3), keepdim=True) + 1e-5).sqrt()


def content_code(state: State, images: Tensor, depth: int, num_res: int) -> Tensor:
    x = F.relu(standardise(convolve(state, "enc_content.model.0.conv", images, 3)))
    for index in range(1, depth + 1):
        x = F.relu(standardise(convolve(state, f"enc_content.model.{index}.conv", x, 1, 2)))
    for index in range(num_res):
        block = f"enc_content.model.{depth + 1}.model.{index}.model"
        inner = F.relu(standardise(convolve(state, f"{block}.0.conv", x, 1)))
        x = x + standardise(convolve(state, f"{block}.1.conv", inner, 1))
    return x


def style_code(state: State, images: Tensor) -> Tensor:
    x = F.relu(convolve(state, "enc_style.model.0.conv", images, 3))
    for index in range(1, 5):
        x = F.relu(convolve(state, f"enc_style.model.{index}.conv", x, 1, 2))
    return convolve(state, "enc_style.model.6", x.mean((2, 3), keepdim=True), 0).flatten(1)


def decode(state: State, content: Tensor, style: Tensor, depth: int, num_res: int) -> Tensor:
    numbers = style
    for index in range(3):
        numbers = F.linear(numbers, state[f"mlp.model.{index}.fc.weight"], state[f"mlp.model.{index}.fc.bias"])
        numbers = F.relu(numbers) if index < 2 else numbers
    x, wide, offset = content, content.shape[1], 0

    def adaptive(y: Tensor) -> Tensor:
        nonlocal offset
        shift, scale = numbers[:, offset : offset + wide], numbers[:, offset + wide : offset + 2 * wide]
        offset += 2 * wide
        return standardise(y) * scale[:, :, None, None] + shift[:, :, None, None]

    for index in range(num_res):
        block = f"dec.model.0.model.{index}.model"
        inner = F.relu(adaptive(convolve(state, f"{block}.0.conv", x, 1)))
        x = x + adaptive(convolve(state, f"{block}.1.conv", inner, 1))
    for index in range(depth):
        name = f"dec.model.{2 * index + 2}"
        large = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        y = convolve(state, f"{name}.conv", large, 2)
        flat = y.flatten(1)
        mean, deviation = flat.mean(1)[:, None, None, None], flat.std(1, unbiased=True)[:, None, None, None]
        y = (y - mean) / (deviation + 1e-5)
        gamma, beta = state[f"{name}.norm.gamma"], state[f"{name}.norm.beta"]
        x = F.relu(y * gamma[None, :, None, None] + beta[None, :, None, None])
    return torch.tanh(convolve(state, f"dec.model.{2 * depth + 1}.conv", x, 3))
