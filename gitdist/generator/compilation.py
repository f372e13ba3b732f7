"""A decoder as machine code of its own, for batches of one size.

Whatever else is compiled or decoded in the process, an image comes out of the same code in a batch of the same size; so
its bytes are a function of its codes alone. Left to itself torch.compile makes other code when other sizes come.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from gitdist.errors import StreamError, first_line

Decode = Callable[[Tensor, Tensor], Tensor]


def compile_decoder(decode: Decode, batch: int) -> Decode:
    """Return ``decode``, compiled at its first call, for batches of ``batch`` rows; others are cut and filled up.

    Args:
        decode: maps content codes ``[N, ...]`` and styles ``[N, style_dim]`` to images ``[N, C, H, W]``, each row for
            itself.
        batch: rows of a batch.

    Returns:
        a function that raises StreamError where compilation fails, as it does without a C++ compiler.
    """
    from torch._dynamo.exc import BackendCompilerFailed  # takes a second to import, and few need it

    compiled = torch.compile(decode, fullgraph=True, dynamic=False)

    def decode_part(codes: Tensor, styles: Tensor) -> Tensor:
        fill = batch - len(codes)
        try:
            images: Tensor = compiled(_filled(codes, fill), _filled(styles, fill))
        except BackendCompilerFailed as error:
            cause = error.inner_exception
            raise StreamError(
                f"stream.compile needs a decoder that compiles here, but {type(cause).__name__}: {first_line(cause)}; "
                "install a C++ compiler (g++, say) or set stream.compile to false"
            ) from error
        return images[: len(codes)]

    def decode_all(codes: Tensor, styles: Tensor) -> Tensor:
        parts = [slice(low, low + batch) for low in range(0, len(codes), batch)]
        return torch.cat([decode_part(codes[part], styles[part]) for part in parts])

    return decode_all


def _filled(rows: Tensor, fill: int) -> Tensor:
    return torch.cat((rows, rows[-1:].expand(fill, *rows.shape[1:]))) if fill else rows
