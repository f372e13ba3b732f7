"""A trained MUNIT as a generator: content codes once an image, then a style, the MLP and the decoder for each draw."""

import numpy as np
import torch
from torch import Tensor

from gitdist.device import Compute
from gitdist.errors import StreamError
from gitdist.generator.base import Generator
from gitdist.generator.batches import draw_styles, to_signed, to_uint8
from gitdist.generator.compilation import compile_decoder
from gitdist.generator.convolution import Convolution
from gitdist.generator.munit import AutoEncoder


class MunitGenerator(Generator):
    """x' = decode(content(x), s) with s ~ N(0, I)."""

    def __init__(
        self, auto_encoder: AutoEncoder, style_dim: int, compute: Compute, compiled_batch: int | None = None
    ) -> None:
        """Take over a trained auto-encoder: its kernels are frozen in the type that ``compute`` draws in.

        Args:
            auto_encoder: trained; not to be trained further.
            style_dim: numbers of a style code.
            compute: device and precision.
            compiled_batch: draws computed at once by a compiled decoder; None = it is not compiled.
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
        """Return content codes, bf16 or float32 ``[N, dim * 2^d, H / 2^d, W / 2^d]``; ``clean`` is not read."""
        codes: Tensor = self._auto_encoder.content_encoder(to_signed(images, self._compute))
        return codes

    @torch.inference_mode()
    def draw(self, codes: Tensor, rng: np.random.Generator) -> Tensor:
        """Return one draw for each content code, each in its own style: uint8 ``[N, C, H, W]``.

        Raises:
            StreamError: the network's output is not finite, which as uint8 would be black pixels.
        """
        styles = draw_styles(len(codes), self._style_dim, rng, self.device)
        images = self._decode(codes.contiguous(memory_format=torch.channels_last), styles)
        finite = images.sum().isfinite()  # each value is in -1..1, so only NaN spoils the sum
        drawn = to_uint8(images)
        if not finite:
            raise StreamError(
                "a generator must draw finite values, but its network's output is NaN: its weights are finite, but too "
                "large to compute with; train or import another one"
            )
        return drawn
