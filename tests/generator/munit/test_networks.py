import numpy as np
import pytest
import torch

from gitdist.device import Compute
from gitdist.errors import SpecError
from gitdist.generator.munit.batches import BalancedBatches
from gitdist.generator.munit.networks import (
    AutoEncoder,
    Discriminator,
    check_geometry,
    fitting_downsamplings,
    initialise,
)
from gitdist.generator.munit.training import MunitTrainer
from gitdist.spec import MunitSpec


def num_weights(network: torch.nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in network.parameters()) / 1e6, 1)


def ready(spec: MunitSpec, channels: int = 1) -> AutoEncoder:
    network = AutoEncoder(spec, channels)
    initialise(network, None, torch.Generator().manual_seed(0))
    return network


def signed_images(num: int, channels: int, side: int) -> torch.Tensor:
    return torch.rand(num, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_networks_have_the_papers_sizes():
    network = AutoEncoder(MunitSpec(), 1)
    sizes = [num_weights(part) for part in (network.content_encoder, network.decoder, network.mlp)]
    assert sizes == [5.4, 5.7, 1.1]
    assert sum(p.numel() for p in network.mlp.layers[-1].parameters()) == 4096 * 257


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_shapes_of_codes_images_and_scores(tiny, channels, side):
    network, images = ready(tiny, channels), signed_images(2, channels, side)
    content, style = network.content_encoder(images), network.style_encoder(images)
    assert content.shape == (2, 16, side // 4, side // 4)
    assert style.shape == (2, 8)
    decoded = network.decode(content, style)
    assert decoded.shape == images.shape
    assert decoded.abs().max() <= 1
    assert Discriminator(tiny, channels)(images).shape == (2, 1, side // 4, side // 4)


@pytest.mark.parametrize(("num_downsample", "side"), [(0, 18), (1, 18), (3, 32)])
def test_any_number_of_downsamplings_decodes_to_the_images_size(tiny, num_downsample, side):
    network = ready(tiny.model_copy(update={"num_downsample": num_downsample}))
    images = signed_images(1, 1, side)
    assert network.decode(network.content_encoder(images), torch.zeros(1, 8)).shape == images.shape


@pytest.mark.parametrize(
    ("side", "downsamplings"),
    [(28, 2), (32, 2), (64, 2), (72, 3), (96, 3), (128, 3), (224, 4), (256, 4), (100, 2), (30, 1), (27, 0)],
)
def test_larger_images_are_halved_more_often_to_codes_of_16x16(side, downsamplings):
    assert fitting_downsamplings((3, side, side)) == downsamplings
    assert fitting_downsamplings((3, side, 2 * side)) >= downsamplings


def test_munit_learns_from_images_of_128_pixels_and_restores_their_size(tiny):
    spec = tiny.model_copy(update={"dim": 2, "num_downsample": fitting_downsamplings((3, 128, 128)), "batch_size": 2})
    check_geometry(spec, (3, 128, 128))
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 128, 128), dtype=np.uint8)
    compute = Compute.resolve("float32", "cpu")
    trainer = MunitTrainer(spec, BalancedBatches(images, np.arange(4) % 2, spec, compute), 3, compute)
    assert trainer.step(0).isfinite().all()
    network, shown = ready(spec, 3), signed_images(1, 3, 128)
    content = network.content_encoder(shown)
    assert content.shape == (1, 16, 16, 16)
    assert network.decode(content, torch.zeros(1, 8)).shape == shown.shape


def test_the_style_changes_the_image_and_the_content_code_does_not_know_it(tiny):
    network, images = ready(tiny), signed_images(1, 1, 28)
    content = network.content_encoder(images)
    styles = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    first, second, again = (network.decode(content, styles[i : i + 1]) for i in (0, 1, 0))
    assert (first - second).abs().mean() > 0.01
    assert torch.equal(first, again)
    assert torch.equal(content, network.content_encoder(images))


def test_adain_reads_shifts_before_scales_of_each_layer(tiny):
    network = ready(tiny)
    numbers = torch.arange(4 * 16, dtype=torch.float32)
    with torch.no_grad():
        network.mlp.layers[-1].weight.zero_()
        network.mlp.layers[-1].bias.copy_(numbers)
    affine = network.mlp(torch.zeros(1, 8))[0, 0, :, :, :, 0, 0]
    assert affine.tolist() == numbers.view(2, 2, 16).tolist()


def test_a_first_step_in_bf16_is_close_to_float32_and_finite(tiny):
    network, images = ready(tiny), signed_images(4, 1, 28)
    styles = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    exact = network.decode(network.content_encoder(images), styles)
    rough = network.decode(network.content_encoder(images.bfloat16()), styles)
    assert rough.dtype == torch.float32
    assert (exact - rough).abs().mean() < 0.05
    rough.mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


def test_initialisation_is_seeded_and_leaves_the_global_random_state_alone(tiny):
    before = torch.get_rng_state()
    first, second = ready(tiny), ready(tiny)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    weight = ready(MunitSpec(dim=16, num_res=1)).content_encoder.blocks[0].convolutions[0].weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({}, (1, 30, 30), "multiples of 4, but images are 30x30"),
        ({"discriminator_layers": 5}, (1, 28, 28), "discriminator_layers needs image sides of at least 32"),
        ({}, (1, 12, 12), "style encoder .* at least 16"),
        ({"num_downsample": 4}, (1, 16, 16), "num_downsample needs image sides of at least 32"),
    ],
)
def test_sizes_that_leave_nothing_of_an_image_are_refused_with_the_field(tiny, changes, shape, message):
    with pytest.raises(SpecError, match=message):
        check_geometry(tiny.model_copy(update=changes), shape)
