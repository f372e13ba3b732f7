import pytest
import torch
from torch.nn import functional

from gitdist.bench.card import Variant, card_figures, decode_operations, decoding, matrix_products
from gitdist.device import Compute

CPU = torch.device("cpu")


def test_operations_are_counted_two_for_a_product():
    weight = torch.ones(4, 2, 3, 3)
    code, style = torch.ones(1, 2, 8, 8), torch.ones(1, 8)
    counted = decode_operations(lambda code, style: functional.conv2d(code, weight, padding=1), code, style)
    assert counted == 2 * (4 * 8 * 8) * (2 * 3 * 3)


def test_the_limit_leaves_the_arithmetic_of_products_as_it_was():
    before = torch.backends.cuda.matmul.fp32_precision
    assert before != torch.backends.cudnn.conv.fp32_precision  # else products would not have been changed
    assert matrix_products(Compute(device=CPU, bf16=False), 8, 2)() > 0
    assert torch.backends.cuda.matmul.fp32_precision == before


@pytest.mark.parametrize(("images", "turns"), [(64, 4), (70, 4), (3, 1)])
def test_a_turn_decodes_whole_batches(images, turns):
    decoded = []
    side = decoding(lambda codes, styles: decoded.append(len(codes)), torch.ones(16, 2), torch.ones(16, 8), images)
    assert side() > 0 and decoded == [16] * turns


def test_a_share_is_of_the_limit_in_the_same_arithmetic():
    rates = {
        Variant("TF32"): [1000.0],
        Variant("TF32", 64): [20.0],
        Variant("bf16"): [4000.0],
        Variant("bf16", 64): [40.0],
        Variant("bf16", 64, compiled=True): [80.0],
    }
    shares = {each.name: each.spread.median for each in card_figures(rates, 10) if each.name.startswith("share")}
    assert shares == {
        "share of the GPU's limit: TF32, batches of 64": 0.2,
        "share of the GPU's limit: bf16, batches of 64": 0.1,
        "share of the GPU's limit: bf16 compiled, batches of 64": 0.2,
    }
