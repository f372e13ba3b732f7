"""A trained MUNIT as a generator: content codes once per image; a style, the MLP and the decoder per draw."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gitdist.device import Compute
from gitdist.errors import StreamError, first_line
from gitdist.generator.base import Generator
from gitdist.generator.munit.batches import draw_styles, to_signed, to_uint8
from gitdist.generator.munit.layers import Convolution
from gitdist.generator.munit.networks import AutoEncoder

Decode = Callable[[Tensor, Tensor], Tensor]


class MunitGenerator(Generator):
    """x' = decode(content(x), s) with s ~ N(0, I)."""

    def __init__(
        self, auto_encoder: AutoEncoder, style_dim: int, compute: Compute, compiled_batch: int | None = None
    ) -> None:
        """Take over a trained auto-encoder; its kernels are frozen in the type in which ``compute`` draws.

        ``compiled_batch`` is the number of draws per call of a compiled decoder; None = not compiled.
        """
        self.device, self._compute, self._style_dim = compute.device, compute, style_dim
        self._auto_encoder = auto_encoder.to(compute.device).eval().requires_grad_(False)
        for module in self._auto_encoder.modules():
            if isinstance(module, Convolution):
                module.freeze(torch.bfloat16 if compute.bf16 else torch.float32)
        decode = self._auto_encoder.decode
        self._decode = compile_decoder(decode, compiled_batch) if compiled_batch else decode

    @torch.inference_mode()
    def encode(self, images: Tensor, clean: Tensor) -> Tensor:
        """Return content codes, bf16 or float32 ``[N, dim * 2^d, H / 2^d, W / 2^d]``."""
        codes: Tensor = self._auto_encoder.content_encoder(to_signed(images, self._compute))
        return codes

    @torch.inference_mode()
    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return one draw for each content code, each in its own style: uint8 ``[N, C, H, W]``."""
        styles = draw_styles(len(codes), self._style_dim, rng, self.device)
        images = self._decode(codes.contiguous(memory_format=torch.channels_last), styles)
        finite = images.sum().isfinite()  # each value is in -1..1, so only NaN makes the sum non-finite
        drawn = to_uint8(images)
        if not finite:
            raise StreamError("a generator must draw finite values, but its output is NaN; train or import another one")
        return drawn


def compile_decoder(decode: Decode, batch: int) -> Decode:
    """Return ``decode``, compiled at its first call, for batches of ``batch`` rows; others are split and padded.

    ``decode`` maps content codes ``[N, ...]`` and styles ``[N, style_dim]`` to images ``[N, C, H, W]``. Batches of one
    size run one compiled function, so the bytes of an image depend on its codes only; by itself torch.compile generates
    another function when other sizes come. The returned function raises StreamError if compilation fails, as it does
    without a C++ compiler.
    """
    from torch._dynamo.exc import BackendCompilerFailed  # slow to import

    compiled = torch.compile(decode, fullgraph=True, dynamic=False)

    def pad(rows: Tensor) -> Tensor:
        missing = batch - len(rows)
        return torch.cat((rows, rows[-1:].expand(missing, *rows.shape[1:]))) if missing else rows

    def decode_part(codes: Tensor, styles: Tensor) -> Tensor:
        try:
            images: Tensor = compiled(pad(codes), pad(styles))
        except BackendCompilerFailed as error:
            cause = error.inner_exception
            message = f"stream.compile failed with {type(cause).__name__}: {first_line(cause)}"
            raise StreamError(f"{message}; install a C++ compiler (g++) or set stream.compile to false") from error
        return images[: len(codes)]

    def decode_all(codes: Tensor, styles: Tensor) -> Tensor:
        parts = [slice(low, low + batch) for low in range(0, len(codes), batch)]
        return torch.cat([decode_part(codes[part], styles[part]) for part in parts])

    return decode_all
