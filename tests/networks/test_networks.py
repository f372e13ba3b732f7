import pytest
import torch
from torch.nn import functional

from gitdist.errors import SpecError
from gitdist.networks import build_classifier
from gitdist.networks.classifier import compiled
from gitdist.networks.heads import LinearHead, head_name
from gitdist.networks.resnets import BasicBlock
from gitdist.spec import TrialSpec
from gitdist.torchvision_cpu import torchvision
from tests.trial.toys import IMPORTS_INDUCTOR


@pytest.mark.parametrize(
    ("network", "millions"), [("resnet20", 0.27), ("resnet32", 0.46), ("resnet18", 11.18), ("resnet50", 23.53)]
)
def test_networks_have_the_published_number_of_weights(network, millions):
    model = build_classifier(network, (3, 96, 96), 10)

    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize(("network", "layers"), [("resnet20", 20), ("resnet32", 32)])
def test_networks_have_as_many_layers_as_their_names_say(network, layers):
    model = build_classifier(network, (1, 28, 28), 10)

    assert sum(weight.dim() > 1 for weight in model.parameters()) == layers


def test_an_unknown_network_is_refused():
    with pytest.raises(SpecError, match="'efficientnet_b0' gives LookupError"):
        build_classifier("efficientnet_b0", (3, 32, 32), 10)
    with pytest.raises(ValueError, match="unknown network 'efficientnet_b0'; known: .*resnet20, .*timm:NAME"):
        TrialSpec(network="efficientnet_b0")
    with pytest.raises(ValueError, match="unknown network 'resnet-20'; did you mean 'resnet20'"):
        TrialSpec(network="resnet-20")


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
    models = [build_classifier(network, (1, 28, 28), 10, rng=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]

    same, other = (
        all(torch.equal(a, b) for a, b in zip(models[0].parameters(), model.parameters(), strict=True) if a.dim() > 1)
        for model in models[1:]
    )
    assert same and not other
    assert torch.equal(before, torch.get_rng_state())


def test_initial_convolutions_have_the_variance_of_kaiming():
    weight = build_classifier("resnet20", (1, 28, 28), 10).blocks[-1].conv2.weight

    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(("network", "channels", "side"), [("resnet20", 1, 28), ("resnet18", 3, 96)])
def test_logits_are_float32_under_autocast_and_close_to_those_without(network, channels, side):
    model = build_classifier(network, (channels, side, side), 10).eval()
    images = torch.rand(8, channels, side, side)
    with torch.inference_mode():
        exact = model(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(images)

    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_large_resnets_are_torchvisions_with_its_names(name):
    model, reference = build_classifier(name, (3, 96, 96), 10).eval(), getattr(torchvision.models, name)(num_classes=10)
    images = torch.rand(2, 3, 96, 96)

    reference.eval().load_state_dict(model.state_dict())

    assert torch.allclose(model(images), reference(images), atol=1e-4)


@pytest.mark.parametrize(("side", "kernel", "features"), [(28, 3, 4), (32, 3, 4), (64, 3, 8), (65, 7, 3)])
def test_large_resnets_have_a_small_stem_up_to_64_pixels(side, kernel, features):
    model = build_classifier("resnet18", (1, side, side), 10).eval()
    shapes = []
    model.avgpool.register_forward_pre_hook(lambda module, inputs: shapes.append(inputs[0].shape[2:]))
    model(torch.rand(2, 1, side, side))

    assert model.conv1.kernel_size == (kernel, kernel)
    assert shapes == [(features, features)]


def test_weights_of_resnet18_of_earlier_versions_load():
    model = build_classifier("resnet18", (1, 96, 96), 10, rng=torch.Generator().manual_seed(1))
    former = {"conv1": "layers.0", "bn1": "layers.1", "fc": "head"} | {f"layer{i}": f"layers.{i + 3}" for i in range(5)}
    state = {".".join([former[name.split(".")[0]], *name.split(".")[1:]]): w for name, w in model.state_dict().items()}
    other = build_classifier("resnet18", (1, 96, 96), 10)

    other.load_state_dict(state)

    assert {"layers.0.weight", "layers.7.1.bn2.running_var", "head.bias"} <= state.keys()
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in other.state_dict().items())


@pytest.mark.parametrize(("network", "name"), [("resnet20", "head"), ("resnet18", "fc")])
@pytest.mark.parametrize("cosine_scale", [None, 7.0])
def test_every_classifier_has_one_head(network, name, cosine_scale):
    assert head_name(build_classifier(network, (1, 28, 28), 10, cosine_scale=cosine_scale)) == name


def test_a_network_with_no_head_or_two_has_no_head_name():
    with pytest.raises(ValueError, match="none"):
        head_name(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="'0', '1'"):
        head_name(torch.nn.Sequential(LinearHead(2, 2), LinearHead(2, 2)))


def test_a_cosine_head_returns_scaled_cosines():
    model = build_classifier("resnet20", (1, 28, 28), 10, cosine_scale=7.0)
    features = torch.randn(5, 64)

    weights = model.head.weight.detach()
    expected = [[7.0 * functional.cosine_similarity(image, weight, dim=0) for weight in weights] for image in features]

    assert torch.allclose(model.head(features), torch.tensor(expected), atol=1e-5)


@IMPORTS_INDUCTOR
def test_batches_of_another_size_run_as_they_would_uncompiled():
    model, images = build_classifier("resnet20", (1, 28, 28), 10).eval(), torch.rand(5, 1, 8, 8)

    assert torch.equal(compiled(model, batch_size=6)(images), model(images))


@pytest.mark.slow
@IMPORTS_INDUCTOR
def test_a_compiled_network_has_the_gradients_and_statistics_of_the_plain_one():
    images = torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, other = (build_classifier("resnet20", (1, 28, 28), 10).train() for _ in range(2))

    for forward in (plain, compiled(other, batch_size=32)):
        functional.cross_entropy(forward(images), torch.arange(32) % 10).backward()

    for first, second in zip(plain.parameters(), other.parameters(), strict=True):
        assert (first.grad - second.grad).norm() < 0.02 * first.grad.norm()
    for name, value in plain.state_dict().items():
        assert torch.allclose(other.state_dict()[name], value, atol=1e-4), name
