"""Networks of timm, torchvision and other packages: made with our head and their names, or refused in one line."""

import sys

import pytest
import torch

from gitdist.errors import SpecError
from gitdist.networks import build_classifier, libraries, network_version, published_normalisation
from gitdist.networks.check import check_network
from gitdist.networks.heads import CosineHead, LinearHead, head_name
from gitdist.torchvision_cpu import torchvision

timm = pytest.importorskip("timm")

FACTORIES = "tests.networks.sample_factories"
NETWORKS = {
    "timm:test_resnet": (3, 32, 32),
    "timm:test_vit": (1, 32, 32),
    "timm:vit_tiny_patch16_224": (3, 32, 32),  # of a fixed size
    "timm:test_efficientnet.r160_in1k": (1, 28, 28),
    "torchvision:mobilenet_v3_small": (1, 32, 32),
    "torchvision:shufflenet_v2_x0_5": (3, 32, 32),
    f"{FACTORIES}:small": (1, 8, 8),
}


def check(network, image_shape, options=None, batch_size=2):
    check_network(network, image_shape, 10, options or {}, None, batch_size)


@pytest.mark.parametrize(("network", "image_shape"), NETWORKS.items())
@pytest.mark.parametrize("cosine_scale", [None, 7.0])
def test_every_network_has_our_head_and_float32_logits(network, image_shape, cosine_scale):
    model = build_classifier(network, image_shape, 10, cosine_scale=cosine_scale)
    images = torch.rand(3, *image_shape)

    assert type(model.get_submodule(head_name(model))) is (CosineHead if cosine_scale else LinearHead)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert logits.shape == (3, 10) and logits.dtype == torch.float32
    assert cosine_scale is None or logits.abs().max() <= 7.0 + 1e-5
    logits.sum().backward()
    assert all(weight.grad is not None for weight in model.get_submodule(head_name(model)).parameters())


@pytest.mark.parametrize(
    ("network", "library"),
    [
        ("timm:test_vit", lambda: timm.create_model("test_vit", num_classes=10, img_size=32)),
        ("timm:test_resnet", lambda: timm.create_model("test_resnet", num_classes=10)),
        ("torchvision:mobilenet_v3_small", lambda: torchvision.models.mobilenet_v3_small(num_classes=10)),
    ],
)
def test_a_librarys_network_has_its_names_and_gives_its_outputs(network, library):
    ours, theirs = build_classifier(network, (3, 32, 32), 10).eval(), library().eval()
    images = torch.rand(2, 3, 32, 32)

    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    with torch.inference_mode():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("network", ["timm:test_vit", "torchvision:mobilenet_v3_small", f"{FACTORIES}:draws"])
@pytest.mark.parametrize("cosine_scale", [None, 7.0])
def test_initial_weights_follow_the_seed_and_leave_the_global_state_alone(network, cosine_scale):
    def built(seed):
        rng = torch.Generator().manual_seed(seed)
        return build_classifier(network, (3, 32, 32), 10, cosine_scale=cosine_scale, rng=rng).state_dict()

    torch.manual_seed(1)
    before, first = torch.get_rng_state(), built(1)
    torch.manual_seed(2)
    second, other = built(1), built(2)

    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not all(torch.equal(value, other[name]) for name, value in first.items())
    torch.manual_seed(1)
    built(1)
    assert torch.equal(before, torch.get_rng_state())


def test_initial_weights_are_those_of_the_library():
    rng = torch.Generator().manual_seed(5)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.randint(2**63 - 1, (), generator=torch.Generator().manual_seed(5))))
        theirs = timm.create_model("test_vit", num_classes=10, img_size=32).state_dict()

    ours = build_classifier("timm:test_vit", (3, 32, 32), 10, rng=rng).state_dict()

    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_options_are_arguments_of_the_function_that_makes_the_network():
    dropped = build_classifier("timm:test_vit", (3, 32, 32), 10, options={"drop_rate": 0.4})
    wide = build_classifier(f"{FACTORIES}:small", (1, 8, 8), 10, options={"width": 9})

    assert dropped.head_drop.p == 0.4
    assert wide.get_submodule(head_name(wide)).in_features == 9


def test_versions_of_packages_are_known():
    assert network_version("timm:test_vit") == timm.__version__
    assert network_version("torchvision:resnet18") == torchvision.__version__
    assert network_version(f"{FACTORIES}:small") == "2"
    assert network_version("resnet20") is None


def test_published_normalisations_are_those_of_the_library():
    own = timm.get_pretrained_cfg("test_vit")
    assert published_normalisation("timm:test_vit") == (own.mean, own.std)
    assert published_normalisation("torchvision:resnet18") == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert published_normalisation("resnet18") is None and published_normalisation(f"{FACTORIES}:small") is None


@pytest.mark.parametrize(("network", "image_shape"), NETWORKS.items())
def test_networks_that_fit_are_taken(network, image_shape):
    check(network, image_shape)


@pytest.mark.parametrize(
    ("network", "image_shape", "words"),
    [
        ("timm:resnet_18", (3, 32, 32), "did you mean 'timm:resnet18'"),
        ("timm:hf-hub:someone/model", (3, 32, 32), "no network of that name"),
        ("torchvision:resnet81", (3, 32, 32), "did you mean 'torchvision:resnet18'"),
        ("timm:vit_tiny_patch16_224", (3, 8, 8), "timm:vit_tiny_patch16_224"),
        ("timm:deit_tiny_distilled_patch16_224", (3, 32, 32), "its last linear layer, head_dist"),
        (f"{FACTORIES}:exits", (1, 8, 8), "ended its process with exit code 3"),
        (f"{FACTORIES}:TwoOutputs", (1, 8, 8), "returned tuple"),
        (f"{FACTORIES}:ForgetsItsHead", (1, 8, 8), "inner.4, but it returned other values"),
    ],
)
def test_networks_that_do_not_fit_are_refused_in_one_line(network, image_shape, words):
    with pytest.raises(SpecError, match=words) as caught:
        check(network, image_shape)
    assert "trial.network" in str(caught.value)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("torchvision:squeezenet1_1", "no linear layer with 10 outputs"),
        ("no_such_package:x", "No module named 'no_such_package'"),
        ("no_such_entry_point", "no such entry point"),
        (f"{FACTORIES}:fails", r"ValueError: no such width \(sample_factories.py, line"),
        (f"{FACTORIES}:text", "returned one of type str"),
        (f"{FACTORIES}:without_linear", "no linear layer with 10 outputs"),
    ],
)
def test_what_makes_no_network_is_refused_in_one_line(network, words):
    with pytest.raises(SpecError, match=words) as caught:
        build_classifier(network, (3, 32, 32), 10)
    assert "trial.network" in str(caught.value)


@pytest.mark.parametrize(("network", "side"), [("torchvision:resnet18", 32), ("resnet18", 8)])
def test_a_batch_of_one_image_is_refused_if_batch_norm_cannot_take_it(network, side):
    check(network, (3, side, side), batch_size=2)
    with pytest.raises(SpecError, match=f"batches of 1x3x{side}x{side}"):
        check(network, (3, side, side), batch_size=1)


def test_an_unknown_option_is_refused():
    for network in ("timm:test_vit", f"{FACTORIES}:small"):
        with pytest.raises(SpecError, match="trial.network_options"):
            build_classifier(network, (3, 32, 32), 10, options={"no_such_option": 3})


def test_without_timm_its_networks_are_refused_with_the_remedy(monkeypatch):
    monkeypatch.setattr(libraries, "_open_library", lambda prefix: libraries.LIBRARIES[prefix]())  # not the cached one
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SpecError, match=r"needs the package timm, .* pip install 'gitdist\[timm\]'"):
        build_classifier("timm:test_vit", (3, 32, 32), 10)
    build_classifier("torchvision:mobilenet_v3_small", (3, 32, 32), 10)
