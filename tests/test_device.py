from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gitdist.device import Compute, has_bf16_units, limit_to_share, set_threads, tensor_fraction
from gitdist.limits import usable_cpus


@pytest.fixture
def threads() -> object:
    before = torch.get_num_threads()
    yield None
    torch.set_num_threads(before)


@pytest.mark.parametrize(("precision", "bf16"), [("bf16", True), ("float32", False)])
def test_a_named_precision_is_what_runs(precision: str, bf16: bool) -> None:
    compute = Compute.resolve(precision, "cpu")
    assert (compute.bf16, compute.precision, compute.device) == (bf16, precision, torch.device("cpu"))


def test_an_unknown_precision_raises() -> None:
    with pytest.raises(ValueError, match="fp16"):
        Compute.resolve("fp16", "cpu")


def test_auto_on_the_processor_is_bf16_where_there_are_units() -> None:
    assert Compute.resolve(device="cpu").bf16 == has_bf16_units()


def test_autocast_rounds_products_and_leaves_weights_alone() -> None:
    layer, images = torch.nn.Linear(4, 4), torch.ones(2, 4)
    for precision, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        with Compute.resolve(precision, "cpu").autocast():
            assert layer(images).dtype == dtype
    assert layer.weight.dtype == torch.float32


@pytest.mark.parametrize(("cpus", "expected"), [(0.25, 1), (1.0, 1), (1.9, 1), (1e6, usable_cpus())])
def test_threads_are_whole_cores_at_least_one_at_most_all(threads: object, cpus: float, expected: int) -> None:
    assert set_threads(cpus) == torch.get_num_threads() == expected


def test_a_share_without_a_card_binds_threads_alone(threads: object) -> None:
    limit_to_share(1.9, 0.0)
    assert torch.get_num_threads() == 1


def test_a_thread_that_starts_later_has_the_share_too(threads: object) -> None:
    for cpus in (1e6, 1):
        set_threads(cpus)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1


@pytest.mark.parametrize(
    ("share", "gib", "expected_gib"),
    [(0.5, 16, 7.5), (0.25, 80, 19.5), (0.25, 4, 0.5), (0.1, 8, 0.4)],  # the last keeps half of its share
)
def test_tensors_take_what_the_context_leaves_of_a_share(share: float, gib: int, expected_gib: float) -> None:
    assert tensor_fraction(share, gib * 2**30) * gib == pytest.approx(expected_gib)


@pytest.mark.gpu
def test_a_part_of_a_card_is_a_bound_on_its_memory(threads: object) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU is visible")
    limit_to_share(1.0, 0.25)
    total = torch.cuda.get_device_properties(0).total_memory
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(int(0.3 * total), dtype=torch.uint8, device="cuda")
    assert torch.empty(int(0.1 * total), dtype=torch.uint8, device="cuda").is_cuda


@pytest.mark.gpu
def test_auto_takes_a_visible_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU is visible")
    assert Compute.resolve().device.type == "cuda"
