import pytest
import torch
from torch.nn import functional

from gitdist.errors import SpecError
from gitdist.networks import build_classifier, check_network
from gitdist.networks.classifier import compiled
from gitdist.networks.resnets import BasicBlock
from gitdist.spec import TrialSpec
from gitdist.torchvision_cpu import torchvision
from tests.trial.toys import IMPORTS_INDUCTOR


@pytest.mark.parametrize(("network", "millions"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet18", 11.18)])
def test_networks_have_the_published_number_of_weights(network, millions):
    model = build_classifier(network, 3, 10)

    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize(("network", "layers"), [("resnet20", 20), ("resnet32", 32)])
def test_networks_have_as_many_layers_as_their_names_say(network, layers):
    model = build_classifier(network, 1, 10)

    assert sum(weight.dim() > 1 for weight in model.parameters()) == layers


def test_an_unknown_network_is_refused():
    with pytest.raises(KeyError, match="efficientnet_b0"):
        build_classifier("efficientnet_b0", 3, 10)
    with pytest.raises(ValueError, match="'resnet32' or 'resnet18'"):
        TrialSpec(network="efficientnet_b0")


def test_shortcut_of_a_wider_block_takes_every_second_pixel_and_adds_zero_channels():
    block = BasicBlock(2, 4, stride=2)
    torch.nn.init.zeros_(block.norm2.weight)
    features = torch.rand(3, 2, 6, 6)

    outcome = block(features)

    assert torch.equal(outcome[:, 1:3], features[:, :, ::2, ::2])
    assert not outcome[:, [0, 3]].any()


@pytest.mark.parametrize("network", ["resnet20", "resnet18"])
def test_initial_weights_follow_the_seed_and_leave_the_global_state_alone(network):
    before = torch.get_rng_state()
    models = [build_classifier(network, 1, 10, rng=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]

    same, other = (
        all(torch.equal(a, b) for a, b in zip(models[0].parameters(), model.parameters(), strict=True) if a.dim() > 1)
        for model in models[1:]
    )
    assert same and not other
    assert torch.equal(before, torch.get_rng_state())


def test_initial_convolutions_have_the_variance_of_kaiming():
    weight = build_classifier("resnet20", 1, 10).blocks[-1].conv2.weight

    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(("network", "channels", "side"), [("resnet20", 1, 28), ("resnet18", 3, 96)])
def test_logits_are_float32_under_autocast_and_close_to_those_without(network, channels, side):
    model = build_classifier(network, channels, 10).eval()
    images = torch.rand(8, channels, side, side)
    with torch.inference_mode():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(images)

    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_resnet18_is_torchvisions_with_another_first_and_last_layer():
    model, images = build_classifier("resnet18", 1, 10).eval(), torch.rand(2, 1, 96, 96)
    reference = torchvision.models.resnet18(num_classes=10).eval()
    reference.conv1 = model.layers[0]
    weights = {f"layers.{index}": name for index, (name, _) in enumerate(reference.named_children())}
    state = {
        f"{weights[name[:8]]}{name[8:]}": value for name, value in model.state_dict().items() if "head" not in name
    }
    reference.load_state_dict({**state, "fc.weight": model.head.weight, "fc.bias": model.head.bias})
    assert torch.allclose(model(images), reference(images), atol=1e-5)


@pytest.mark.parametrize(
    ("network", "side", "remedy"),
    [("resnet20", 65, "resnet18"), ("resnet32", 128, "resnet18"), ("resnet18", 64, "resnet20 or resnet32")],
)
def test_a_network_for_images_of_another_size_is_refused(network, side, remedy):
    with pytest.raises(SpecError, match=f"trial.network {network} .* {side}x{side}; set it to {remedy}, or resize"):
        check_network(network, (3, side, side))
    check_network(remedy.split()[0], (3, side, side))


def test_a_cosine_head_returns_scaled_cosines():
    model = build_classifier("resnet20", 1, 10, cosine_scale=7.0)
    features = torch.randn(5, 64)

    weights = model.head.weight.detach()
    expected = [[7.0 * functional.cosine_similarity(image, weight, dim=0) for weight in weights] for image in features]

    assert torch.allclose(model.head(features), torch.tensor(expected), atol=1e-5)


@IMPORTS_INDUCTOR
def test_batches_of_another_size_run_as_they_would_uncompiled():
    model, images = build_classifier("resnet20", 1, 10).eval(), torch.rand(5, 1, 8, 8)

    assert torch.equal(compiled(model, batch_size=6)(images), model(images))


@pytest.mark.slow
@IMPORTS_INDUCTOR
def test_a_compiled_network_has_the_gradients_and_statistics_of_the_plain_one():
    images = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, other = (build_classifier("resnet20", 1, 10).train() for _ in range(2))

    for forward in (plain, compiled(other, batch_size=32)):
        functional.cross_entropy(forward(images), torch.arange(32) % 10).backward()

    for first, second in zip(plain.parameters(), other.parameters(), strict=True):
        assert (first.grad - second.grad).norm() < 0.02 * first.grad.norm()
    for name, value in plain.state_dict().items():
        assert torch.allclose(other.state_dict()[name], value, atol=1e-4), name
