"""Pretrained weights: everything but the head is loaded as it is, and what does not fit is named."""

import pytest
import torch
from safetensors.torch import save_file

from gitdist.errors import SpecError
from gitdist.networks import build_classifier, download_weights
from gitdist.networks.heads import head_name
from gitdist.networks.pretrained import WeightsFile


def classifier(network, image_shape=(3, 32, 32), num_classes=10, seed=1, **fields):
    return build_classifier(network, image_shape, num_classes, rng=torch.Generator().manual_seed(seed), **fields)


def write_safetensors(state, path):
    save_file({name: value.contiguous() for name, value in state.items()}, path)


WRITERS = {
    "safetensors": write_safetensors,
    "torch": torch.save,
    "old torch": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "wrapped": lambda state, path: torch.save({"epoch": 3, "state_dict": state}, path),
    "data parallel": lambda state, path: torch.save({"model": {f"module.{n}": v for n, v in state.items()}}, path),
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("network", ["resnet20", "timm:test_vit", "torchvision:mobilenet_v3_small"])
def test_weights_of_another_number_of_classes_are_loaded_and_the_head_is_new(network, writer, tmp_path):
    path = tmp_path / "weights"
    source = classifier(network, num_classes=7).state_dict()
    WRITERS[writer](source, path)

    scratch = classifier(network, seed=2)
    tuned = classifier(network, seed=2, pretrained=path)

    head = f"{head_name(tuned)}."
    assert any(name.startswith(head) for name in source)
    for name, value in tuned.state_dict().items():
        assert torch.equal(value, scratch.state_dict()[name] if name.startswith(head) else source[name]), name


def test_the_head_is_new_for_the_same_number_of_classes_too(tmp_path):
    write_safetensors(classifier("resnet20").state_dict(), tmp_path / "weights")
    tuned = classifier("resnet20", seed=2, pretrained=tmp_path / "weights")
    assert torch.equal(tuned.head.weight, classifier("resnet20", seed=2).head.weight)


def test_a_cosine_head_takes_pretrained_features(tmp_path):
    source = classifier("timm:test_resnet").state_dict()
    write_safetensors(source, tmp_path / "weights")
    tuned = classifier("timm:test_resnet", seed=2, cosine_scale=7.0, pretrained=tmp_path / "weights").state_dict()

    assert torch.equal(tuned.pop("fc.weight"), classifier("timm:test_resnet", seed=2, cosine_scale=7.0).fc.weight)
    assert tuned and all(torch.equal(value, source[name]) for name, value in tuned.items())


@pytest.mark.parametrize("network", ["timm:test_resnet", "timm:test_vit", "torchvision:mobilenet_v3_small"])
def test_grey_images_give_the_features_of_grey_images_made_rgb(network, tmp_path):
    rgb = classifier(network).eval()
    write_safetensors(rgb.state_dict(), tmp_path / "weights")
    grey = classifier(network, (1, 32, 32), pretrained=tmp_path / "weights").eval()
    images = torch.rand(2, 1, 32, 32)
    for model in (rgb, grey):
        model.get_submodule(head_name(model)).register_forward_pre_hook(
            lambda module, inputs, model=model: model.__dict__.update(features=inputs[0])
        )
    with torch.inference_mode():
        rgb(images.expand(-1, 3, -1, -1)), grey(images)

    assert torch.allclose(rgb.features, grey.features, atol=1e-5)


def test_timm_resizes_the_positions_of_a_transformer(tmp_path):
    source = classifier("timm:test_vit", (3, 64, 64))
    write_safetensors(source.state_dict(), tmp_path / "weights")
    tuned = classifier("timm:test_vit", (3, 32, 32), seed=2, pretrained=tmp_path / "weights")

    assert source.pos_embed.shape[1] == 17 and tuned.pos_embed.shape[1] == 5
    assert torch.equal(tuned.pos_embed[:, 0], source.pos_embed[:, 0])  # of the class token
    assert torch.equal(tuned.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)


def without(name):
    return lambda state: {other: value for other, value in state.items() if other != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("norm.weight"), "norm.weight is missing"),
        (lambda state: {**state, "extra.bias": torch.zeros(2)}, "extra.bias is unknown"),
        (lambda state: {**state, "norm.weight": torch.zeros(3)}, r"norm.weight has the shape \[3\], not \[16\]"),
        (lambda state: {**state, "norm.bias": torch.full((16,), torch.nan)}, "norm.bias has NaN"),
        (lambda state: {**state, "norm.bias": [1.0]}, "'norm.bias' is of type list"),
        (lambda state: {}, "must hold named tensors"),
        (lambda state: [1, 2], "it holds list"),
    ],
)
def test_what_does_not_fit_is_named(change, words, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(change(classifier("resnet20").state_dict()), path)
    with pytest.raises(SpecError, match=words) as caught:
        classifier("resnet20", pretrained=path)
    assert str(path) in str(caught.value) and "trial.pretrained" in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path):
    write_safetensors(classifier("timm:test_resnet").state_dict(), tmp_path / "weights")
    with pytest.raises(SpecError, match=r"must have the weights of timm:test_vit, but .* cls_token is missing"):
        classifier("timm:test_vit", pretrained=tmp_path / "weights")


@pytest.mark.parametrize("content", [b"", b"PK\3\4 cut", b"<html>", b"version https://git-lfs", b"text of any kind"])
def test_files_that_hold_no_weights_are_refused(content, tmp_path):
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(SpecError, match="must be a file of safetensors or torch"):
        classifier("resnet20", pretrained=tmp_path / "weights")


def test_a_program_in_a_file_does_not_run(tmp_path):
    torch.save({"head.weight": Harmful()}, tmp_path / "weights.pth")
    with pytest.raises(SpecError, match="neither a tensor nor a plain value"):
        classifier("resnet20", pretrained=tmp_path / "weights.pth")


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


def test_files_are_known_by_their_content(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    first, same, other = (WeightsFile.open(tmp_path / name).digest for name in "abc")
    assert first == same != other
    with pytest.raises(SpecError, match="trial.pretrained: cannot read"):
        WeightsFile.open(tmp_path / "missing")


def test_weights_that_cannot_be_downloaded_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(SpecError, match=r"cannot be downloaded .* set trial.pretrained to the file"):
        download_weights("torchvision:resnet18")
