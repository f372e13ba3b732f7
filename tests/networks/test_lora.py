"""Low-rank adaptation: what is adapted, what it computes, and that merging gives the same answers and the old names."""

import pytest
import torch
from torch import nn

from gitdist.errors import SpecError
from gitdist.networks import build_classifier
from gitdist.networks.check import check_network
from gitdist.networks.lora import add_lora, lora_parameters, merge_lora, merged_state

SHAPE = (1, 8, 8)


class TinyTransformer(nn.Module):
    """Two layers over image rows; torch's attention reads ``out_proj.weight`` without calling that layer."""

    def __init__(self, image_shape, num_classes, batch_norm=False):
        super().__init__()
        channels, height, width = image_shape
        self.embedding = nn.Linear(channels * width, 16)
        self.norm = nn.BatchNorm1d(height) if batch_norm else nn.Identity()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classes = nn.Linear(16, num_classes)

    def forward(self, images):
        tokens = self.encoder(self.norm(self.embedding(images.permute(0, 2, 1, 3).flatten(2))))
        return self.classes(tokens.mean(1))


TINY_TRANSFORMER = f"{TinyTransformer.__module__}:{TinyTransformer.__qualname__}"


def tiny_transformer():
    return build_classifier(TINY_TRANSFORMER, SHAPE, 10)


def adapted(rank=2, alpha=3.0):
    model = tiny_transformer()
    add_lora(model, TINY_TRANSFORMER, rank, alpha, torch.Generator().manual_seed(1))
    return model


def moved(model):
    """Give the low-rank parts other values than their first ones."""
    rng = torch.Generator().manual_seed(2)
    for parameter in lora_parameters(model):
        nn.init.normal_(parameter, generator=rng)
    return model


IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def test_every_linear_layer_but_the_head_is_adapted():
    model = adapted()

    names = [name.partition(".parametrizations")[0] for name, _ in model.named_parameters() if name.endswith(".up")]
    inside = [
        f"encoder.layers.{layer}.{name}" for layer in (0, 1) for name in ("self_attn.out_proj", "linear1", "linear2")
    ]
    assert sorted(names) == sorted(["embedding", *inside])
    assert sum(parameter.numel() for parameter in lora_parameters(model)) == 2 * (8 + 16) + 2 * 2 * (
        2 * 16 + 2 * (16 + 32)
    )


@pytest.mark.parametrize("network", ["resnet20", "resnet18"])
def test_a_network_without_such_layers_is_refused_in_one_line(network):
    with pytest.raises(
        SpecError, match=f"trial.adapt lora needs .* but '{network}' has none; set trial.adapt"
    ) as raised:
        check_network(network, (3, 32, 32), 10, {}, None, 2, lora=True)
    assert "\n" not in str(raised.value)
    check_network(network, (3, 32, 32), 10, {}, None, 2)


@pytest.mark.parametrize("network", ["timm:test_vit", TINY_TRANSFORMER])
def test_transformers_can_be_adapted(network):
    check_network(network, (3, 32, 32), 10, {}, None, 2, lora=True)


def test_an_adapted_classifier_begins_as_it_was():
    assert torch.equal(adapted().eval()(IMAGES), tiny_transformer().eval()(IMAGES))


def test_the_weight_is_that_of_the_formula():
    model = moved(adapted(rank=2, alpha=3.0))
    layer, plain = model.encoder.layers[0].linear1, tiny_transformer().encoder.layers[0].linear1
    down, up = (getattr(layer.parametrizations.weight[0], name) for name in ("down", "up"))

    assert torch.allclose(layer.weight, plain.weight + 3.0 / 2 * up @ down, atol=1e-6)
    assert torch.equal(layer.bias, plain.bias)


def test_merged_weights_have_the_old_names_and_give_the_same_answers():
    model = moved(adapted()).eval()
    with torch.inference_mode():
        answers = model(IMAGES)
    under_autocast = bf16(model)
    state = merged_state(model)
    plain = tiny_transformer().eval()
    assert list(state) == list(plain.state_dict()) and lora_parameters(model)

    plain.load_state_dict(state)
    merged = merge_lora(model)

    assert merged is model and not lora_parameters(model)
    for each in (plain, merged):
        assert torch.allclose(each(IMAGES), answers, atol=1e-6)
        assert torch.equal(bf16(each), under_autocast)
    assert not torch.allclose(answers, tiny_transformer().eval()(IMAGES), atol=1e-3)


def bf16(model):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return model(IMAGES)
