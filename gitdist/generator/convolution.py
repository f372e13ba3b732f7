"""MUNIT's convolutions: reflection padding in front of each, and the two of the decoder that are folded.

A kernel over an enlarged image reads every small pixel several times. Folding adds up the taps that read the same
pixel, so that one convolution over the small image gives all output phases:

    enlarge x2, 5x5 kernel, O channels      = 3x3 kernel, 4*O channels, then interleave    (9/25 of the products)
    7x7 kernel, O = 1 or 3 channels         = 10x10 kernel, stride 4, 16*O channels        (fills the vector units)

Both give the same function of the same 5x5 and 7x7 weights up to rounding. On a processor with bf16 units they took 2.6
times and 5 times less than the plain convolutions. Layers compute in the type of their input and keep float32 weights:
autocast would take every reflection padding to float32 and back on a processor.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Convolution(nn.Module):
    """A convolution with bias, preceded by reflection padding that keeps the size at stride 1.

    ``freeze`` keeps the kernels in the form and type in which they are applied, for a network that is only read.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        """Make the layer with all weights zero.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            kernel: side of the kernel in pixels; 7 pads by 3, 5 by 2, 4 and 3 by 1.
            stride: of the output grid, in pixels.
        """
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
        """Fix the weights at their present values in ``dtype``."""
        self._frozen = tuple(tensor.detach().to(dtype) for tensor in self.kernels())

    def kernels_in(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return the frozen kernels, or the present ones in ``dtype``."""
        return self._frozen or tuple(kernel.to(dtype) for kernel in self.kernels())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, out_channels, H / stride, W / stride]``."""
        weight, bias = self.kernels_in(x.dtype)
        return F.conv2d(reflect(x, self.padding), weight, bias, self.stride)


class UpsamplingConvolution(Convolution):
    """Nearest-neighbour enlargement by 2, reflection padding and a 5x5 convolution, computed on the small image."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        """Make the layer with all weights zero; the arguments are channels."""
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
        # The folded kernel takes a pixel beyond the edge for a repetition of the edge. Reflection differs from that in
        # one tap of the outermost output rows and columns only: it reads the edge's neighbour instead of the edge.
        repeated = _repeat_edges(x)
        y = interleave(F.conv2d(repeated, weight, bias), 2)
        beyond_rows = _edge_steps(x, 2).repeat_interleave(2, 3)
        beyond_columns = _edge_steps(repeated[..., 1:-1], 3).repeat_interleave(2, 2)
        extra_rows = F.conv2d(F.pad(beyond_rows, (2, 2, 0, 0), mode="reflect"), rows, groups=2)
        extra_columns = F.conv2d(beyond_columns, columns, groups=2)
        return _add_to_edges(y, extra_rows, extra_columns)


class OutputConvolution(Convolution):
    """A 7x7 convolution to few channels, computed for a square of output pixels at once."""

    def __init__(self, in_channels: int, out_channels: int, side: int) -> None:
        """Make the layer with all weights zero.

        Args:
            in_channels: channels of the input.
            out_channels: channels of the output.
            side: of the square, in pixels; divides the sides of every image.
        """
        super().__init__(in_channels, out_channels, 7)
        self.side = side

    def kernels(self) -> tuple[Tensor, ...]:
        """Return the kernel ``[side^2 * O, C, 6 + side, 6 + side]`` (row, column, channel) and its bias."""
        side, kernel = self.side, self.weight.shape[-1]
        windows = F.pad(self.weight, (side - 1,) * 4)
        for dim in (2, 3):
            windows = windows.unfold(dim, kernel + side - 1, 1)
        weight = windows.flip(2, 3).permute(2, 3, 0, 1, 4, 5).flatten(0, 2)
        return weight.contiguous(memory_format=torch.channels_last), self.bias.repeat(side**2)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to ``[N, out_channels, H, W]``."""
        weight, bias = self.kernels_in(x.dtype)
        return interleave(F.conv2d(reflect(x, self.padding), weight, bias, self.side), self.side)


def reflect(x: Tensor, padding: int) -> Tensor:
    """Pad the rows and columns of ``[N, C, H, W]`` by reflection without repeating the edge."""
    return F.pad(x, (padding,) * 4, mode="reflect")


def interleave(x: Tensor, side: int) -> Tensor:
    """Spread channels ``[N, side * side * O, H, W]`` (row, column, channel) over ``[N, O, side * H, side * W]``."""
    num, channels, height, width = x.shape
    squares = x.permute(0, 2, 3, 1).reshape(num, height, width, side, side, channels // side**2)
    return squares.transpose(2, 3).reshape(num, side * height, side * width, -1).permute(0, 3, 1, 2)


def _fold_pairs(weight: Tensor, dim: int) -> Tensor:
    """Sum the 5 taps along ``dim`` that read the same small pixel: ``[2, ...]`` with 3 taps for each output phase."""
    a, b, c, d, e = weight.unbind(dim)
    return torch.stack((torch.stack((a + b, c + d, e), dim), torch.stack((a, b + c, d + e), dim)))


def _repeat_edges(x: Tensor) -> Tensor:
    x = torch.cat((x[:, :, :1], x, x[:, :, -1:]), 2)
    return torch.cat((x[..., :1], x, x[..., -1:]), 3)


def _edge_steps(x: Tensor, dim: int) -> Tensor:
    """From the first and the last row (or column) one step inwards, as ``2 * C`` channels of extent 1 along ``dim``."""
    size = x.shape[dim]
    first = x.narrow(dim, 1, 1) - x.narrow(dim, 0, 1)
    last = x.narrow(dim, size - 2, 1) - x.narrow(dim, size - 1, 1)
    return torch.cat((first, last), 1)


def _add_to_edges(y: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    top, bottom = rows.squeeze(2).chunk(2, 1)
    left, right = columns.squeeze(3).chunk(2, 1)
    y[:, :, 0] += top
    y[:, :, -1] += bottom
    y[..., 0] += left
    y[..., -1] += right
    return y
