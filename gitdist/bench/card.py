"""A GPU's generator against the arithmetic limit of the card: images/s in float32, bf16 and compiled.

The limit is measured, not looked up: products of two large square matrices in the arithmetic of the convolutions, which
for float32 is TF32 unless that is switched off. Matrices and styles are random, for a GPU multiplies zeros and ones at
a higher clock. An image's operations are counted on the network as it runs here, with its folded kernels; share of the
limit = operations * images/s / limit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gitdist.bench.report import Figure, Measurement
from gitdist.bench.setting import Setting
from gitdist.bench.timing import Side, alternate, quotients, rate, spread
from gitdist.device import Compute
from gitdist.generator.munit.generator import MunitGenerator, compile_decoder
from gitdist.generator.munit.networks import load_auto_encoder

Decode = Callable[[Tensor, Tensor], Tensor]

_BATCHES = (64, 256, 1024)
_TURN_IMAGES = 16_384
_SIDE = 8192
_PRODUCTS = 20


def card_measurement(setting: Setting) -> Measurement:
    """Measure the servers' GPU; where they have none, say so."""
    device = setting.serving.device
    if device.type != "cuda":
        return Measurement(
            figures=(),
            notes=("float32, bf16 and compiled against a GPU's limit are left out: the servers have no GPU",),
        )
    sides: dict[Variant, Side] = {}
    operations = 0
    for bf16 in (False, True):
        compute = Compute(device=device, bf16=bf16)
        arithmetic = arithmetic_name(compute)
        sides[Variant(arithmetic)] = matrix_products(compute, _SIDE, _PRODUCTS)
        decode, codes, styles = decoder(setting, compute, max(_BATCHES))
        operations = decode_operations(decode, codes[:1], styles[:1])
        for batch in _BATCHES:
            part = codes[:batch], styles[:batch]
            sides[Variant(arithmetic, batch)] = decoding(decode, *part, _TURN_IMAGES)
            if bf16:
                compiled = compile_decoder(decode, batch)
                sides[Variant(arithmetic, batch, compiled=True)] = decoding(compiled, *part, _TURN_IMAGES)
    setting.say("the GPU's arithmetic limit")
    # What was compiled before counts towards the number of sizes at which torch gives up compiling for each.
    torch.compiler.reset()
    return Measurement(figures=card_figures(alternate(sides, setting.repeats), operations))


@dataclass(frozen=True)
class Variant:
    """What is measured in one arithmetic: decoding in batches of a size, or (batch None) the limit."""

    arithmetic: str
    batch: int | None = None
    compiled: bool = False

    def __str__(self) -> str:
        if self.batch is None:
            return f"products of matrices, {self.arithmetic}"
        return f"{self.arithmetic}{' compiled' * self.compiled}, batches of {self.batch}"


def arithmetic_name(compute: Compute) -> str:
    """Return the arithmetic of convolutions: bf16, TF32 or float32."""
    if compute.bf16 or compute.device.type != "cuda":
        return compute.precision
    return "TF32" if _convolutions() == "tf32" else "float32"


def matrix_products(compute: Compute, side: int, products: int) -> Side:
    """Return the side whose figure is arithmetic operations per second in products of square matrices.

    Args:
        compute: device and precision.
        side: rows of a matrix.
        products: of one turn.
    """
    dtype = torch.bfloat16 if compute.bf16 else torch.float32
    left, right = (torch.randn(side, side, dtype=dtype, device=compute.device) for _ in range(2))

    def multiply() -> int:
        with _products_like_convolutions():
            for _ in range(products):
                torch.mm(left, right)
        return products * 2 * side**3

    return rate(multiply, compute.device)


@contextmanager
def _products_like_convolutions() -> Iterator[None]:
    """Let products of float32 matrices use TF32 where convolutions do; torch by itself lets convolutions alone."""
    products: Any = torch.backends.cuda.matmul
    before = products.fp32_precision
    products.fp32_precision = _convolutions()
    try:
        yield
    finally:
        products.fp32_precision = before


def _convolutions() -> str:
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    return str(convolutions.fp32_precision)


def decoder(setting: Setting, compute: Compute, count: int) -> tuple[Decode, Tensor, Tensor]:
    """Return a trained decoder, frozen in the precision of ``compute``, with ``count`` content codes and styles."""
    network = load_auto_encoder(setting.munit, setting.dataset.image_shape[0], setting.artefact)
    generator = MunitGenerator(network, setting.munit.style_dim, compute)
    train = setting.dataset.train.images
    images = torch.from_numpy(train[np.arange(count) % len(train)])
    codes = generator.encode(images, images).contiguous(memory_format=torch.channels_last)
    return network.decode, codes, torch.randn(count, setting.munit.style_dim, device=compute.device)


@torch.inference_mode()
def decode_operations(decode: Decode, codes: Tensor, styles: Tensor) -> int:
    """Return the arithmetic operations (two for a product that is added) of decoding these codes."""
    with FlopCounterMode(display=False) as counter:
        decode(codes, styles)
    return int(counter.get_total_flops())


def decoding(decode: Decode, codes: Tensor, styles: Tensor, images: int) -> Side:
    """Return the side whose figure is images decoded per second, about ``images`` a turn, all codes in one batch."""
    turns = max(1, images // len(codes))

    @torch.inference_mode()
    def turn() -> int:
        for _ in range(turns):
            decode(codes, styles)
        return turns * len(codes)

    return rate(turn, codes.device)


def card_figures(rates: Mapping[Variant, Sequence[float]], operations: int) -> tuple[Figure, ...]:
    """Return the figures, each decoding with its share of the limit in the same arithmetic.

    Args:
        rates: of each variant: operations/s of a limit, images/s of decoding.
        operations: to decode an image.
    """
    figures = [Figure(name="operations to decode an image", spread=spread([operations]), unit="operations")]
    for variant, values in rates.items():
        if variant.batch is None:
            figures.append(Figure(name=str(variant), spread=spread(values), unit="operations/s"))
            continue
        shares = [operations * each for each in quotients(values, rates[Variant(variant.arithmetic)])]
        figures.append(Figure(name=f"decoding on the GPU: {variant}", spread=spread(values), unit="images/s"))
        figures.append(Figure(name=f"share of the GPU's limit: {variant}", spread=spread(shares), unit=""))
    return tuple(figures)
