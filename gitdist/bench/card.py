"""A GPU's generator against the arithmetic limit of the card: images/s in float32, bf16 and compiled.

The limit is measured, not looked up: products of two large square matrices in the same type. An image's operations are
counted on the network as it runs here, with its folded kernels; share of the limit = operations * images/s / limit.
"""

from collections.abc import Callable

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gitdist.bench.report import Figure, Measurement
from gitdist.bench.setting import Setting
from gitdist.bench.timing import Side, alternate, quotients, rate, spread
from gitdist.compute import Compute
from gitdist.generator.munit import AutoEncoder
from gitdist.generator.munit_generator import MunitGenerator
from gitdist.generator.training import WEIGHTS_FILE

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
    sides: dict[str, Side] = {}
    operations = 0
    for bf16 in (False, True):
        compute = Compute(device=device, bf16=bf16)
        sides[f"products of matrices, {compute.precision}"] = matrix_products(compute, _SIDE, _PRODUCTS)
        decode, code, style = decoder(setting, compute)
        operations = decode_operations(decode, code, style)
        for batch in _BATCHES:
            sides[f"{compute.precision}, batches of {batch}"] = decoding(decode, code, style, batch, device)
        if bf16:
            for batch in _BATCHES:
                compiled = torch.compile(decode)
                sides[f"{compute.precision} compiled, batches of {batch}"] = decoding(
                    compiled, code, style, batch, device
                )
    setting.say("the GPU's arithmetic limit")
    return _figures(alternate(sides, setting.repeats), operations)


def matrix_products(compute: Compute, side: int, products: int) -> Side:
    """Return the side whose figure is arithmetic operations per second in products of square matrices.

    Args:
        compute: device and precision.
        side: rows of a matrix.
        products: of one turn.
    """
    dtype = torch.bfloat16 if compute.bf16 else torch.float32
    left, right = (torch.ones(side, side, dtype=dtype, device=compute.device) for _ in range(2))

    def multiply() -> int:
        for _ in range(products):
            torch.mm(left, right)
        return products * 2 * side**3

    return rate(multiply, compute.device)


def decoder(setting: Setting, compute: Compute) -> tuple[Decode, Tensor, Tensor]:
    """Return a trained decoder, frozen in the precision of ``compute``, with one content code and one style."""
    network = AutoEncoder(setting.munit, setting.dataset.image_shape[0])
    network.load_state_dict(load_file(setting.artefact / WEIGHTS_FILE))
    generator = MunitGenerator(network, setting.munit.style_dim, compute)
    image = torch.tensor(setting.dataset.train.images[:1])
    code = generator.encode(image, image)
    return network.decode, code, torch.zeros(1, setting.munit.style_dim, device=compute.device)


@torch.inference_mode()
def decode_operations(decode: Decode, code: Tensor, style: Tensor) -> int:
    """Return the arithmetic operations (two for a product that is added) of decoding one image."""
    with FlopCounterMode(display=False) as counter:
        decode(code, style)
    return int(counter.get_total_flops())


def decoding(decode: Decode, code: Tensor, style: Tensor, batch: int, device: torch.device) -> Side:
    """Return the side whose figure is images decoded per second in batches of so many."""
    codes = code.expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    styles = style.expand(batch, -1).contiguous()

    @torch.inference_mode()
    def turn() -> int:
        turns = max(1, _TURN_IMAGES // batch)
        for _ in range(turns):
            decode(codes, styles)
        return turns * batch

    return rate(turn, device)


def _figures(rates: dict[str, list[float]], operations: int) -> Measurement:
    figures = [Figure(name="operations to decode an image", spread=spread([operations]), unit="FLOP")]
    for name, values in rates.items():
        if name.startswith("products"):
            figures.append(Figure(name=name, spread=spread(values), unit="FLOP/s"))
            continue
        limits = rates[f"products of matrices, {name.split(',')[0].removesuffix(' compiled')}"]
        shares = [operations * share for share in quotients(values, limits)]
        figures.append(Figure(name=f"decoding on the GPU: {name}", spread=spread(values), unit="images/s"))
        figures.append(Figure(name=f"share of the GPU's limit: {name}", spread=spread(shares), unit=""))
    return Measurement(figures=tuple(figures))
