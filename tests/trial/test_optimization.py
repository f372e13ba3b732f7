"""Optimizers, schedules, updates of several batches, clipping, and which parameters and layers an epoch trains."""

from copy import deepcopy
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from gitdist.networks import build_classifier
from gitdist.networks.lora import lora_parameters
from gitdist.networks.pretrained import WeightsFile
from gitdist.spec import TrialSpec
from gitdist.spec.trial import OptimizerName, ScheduleName
from gitdist.trial.checkpoint import fresh_classifier, load_checkpoint, load_classifier
from gitdist.trial.optimization import OPTIMIZERS, SCHEDULES, Optimization, learning_rate
from gitdist.trial.training import train
from tests.networks.test_lora import TINY_TRANSFORMER
from tests.trial.toys import assert_same_state, compute, setting_of, short_spec, timeless, whole


def test_every_name_of_the_spec_is_in_its_table():
    assert set(OPTIMIZERS) == set(get_args(OptimizerName)) and set(SCHEDULES) == set(get_args(ScheduleName))


def test_learning_rate_warms_up_and_steps_down_after_the_milestones():
    spec = TrialSpec(lr=0.1, lr_warmup_epochs=5, lr_milestones=(160, 180), lr_decay=0.01, epochs=200)

    rates = [learning_rate(spec, epoch) for epoch in (1, 4, 5, 6, 160, 161, 180, 181, 200)]

    assert rates == pytest.approx([0.02, 0.08, 0.1, 0.1, 0.1, 1e-3, 1e-3, 1e-5, 1e-5])


def test_without_warm_up_the_first_epoch_has_the_full_rate():
    assert learning_rate(TrialSpec(lr=0.1, lr_warmup_epochs=0), 1) == 0.1


def test_the_cosine_schedule_is_torchs():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=7)
    spec = TrialSpec(lr=0.3, schedule="cosine", epochs=7, lr_warmup_epochs=0)

    for epoch in range(1, 8):
        assert learning_rate(spec, epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()


def test_the_warm_up_scales_the_cosine_schedule():
    spec, plain = (TrialSpec(schedule="cosine", epochs=9, lr_warmup_epochs=epochs) for epochs in (4, 0))

    for epoch in range(1, 10):
        assert learning_rate(spec, epoch) == pytest.approx(min(1, epoch / 4) * learning_rate(plain, epoch))


class Line(nn.Module):
    """A convolution, its norm and the last layer."""

    def __init__(self, image_shape, num_classes):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(image_shape[0], 4, 3, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Linear(4, num_classes)

    def forward(self, images):
        return self.head(self.norm(self.conv(images)).mean((2, 3)))


def line():
    return build_classifier(f"{__name__}:Line", (1, 8, 8), 3)


RNG = torch.Generator().manual_seed(0)
INPUTS, LABELS = torch.randn(22, 1, 8, 8, generator=RNG), torch.randint(0, 3, (22,), generator=RNG)


def learn(spec, model, epochs=1, num_samples=22):
    """Train on the inputs in their order; return after which batches there was an update."""
    optimization, updates = Optimization(spec, model), []
    for epoch in range(1, epochs + 1):
        optimization.begin_epoch(epoch)
        for start in range(0, num_samples, spec.batch_size):
            batch = slice(start, min(start + spec.batch_size, num_samples))
            loss = functional.cross_entropy(model(INPUTS[batch]), LABELS[batch])
            updates.append(optimization.learn(loss, start, num_samples))
    return updates


def reference(make, model, batches, clip=None):
    """Train as a plain loop of torch does, one step per batch; ``make`` makes the optimizer of parameters."""
    optimizer = make(model.parameters())
    model.train()
    for batch in batches:
        optimizer.zero_grad()
        functional.cross_entropy(model(INPUTS[batch]), LABELS[batch]).backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()


BATCHES = [slice(0, 8), slice(8, 16), slice(16, 22)]
PLAIN = {"batch_size": 8, "lr": 0.1, "lr_warmup_epochs": 0, "weight_decay": 0.1, "epochs": 2}


@pytest.mark.parametrize(
    ("fields", "make"),
    [
        ({"momentum": 0.8}, lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.8, weight_decay=0.1)),
        ({"optimizer": "adamw"}, lambda weights: torch.optim.AdamW(weights, lr=0.1, weight_decay=0.1)),
    ],
)
@pytest.mark.parametrize("clip_norm", [0.0, 0.05])
def test_steps_are_those_of_torchs_optimizer(fields, make, clip_norm):
    model, expected = line(), line()

    updates = learn(TrialSpec(**PLAIN, **fields, clip_norm=clip_norm), model)
    reference(make, expected, BATCHES, clip_norm)

    assert updates == [True] * 3
    for name, value in expected.state_dict().items():
        assert torch.allclose(model.state_dict()[name], value, atol=1e-6), name


@pytest.mark.parametrize(
    ("num_samples", "updates"), [(16, [0, 0, 0, 1]), (22, [0, 0, 0, 1, 0, 1]), (17, [0, 0, 0, 1, 1])]
)
def test_an_update_has_the_gradient_of_the_mean_over_all_its_samples(num_samples, updates):
    # Batch norm in evaluation mode: the statistics of a batch would make the parts differ from the whole.
    model, expected = (line().requires_grad_(True) for _ in range(2))
    model.norm = expected.norm = nn.Identity()
    spec = TrialSpec(**PLAIN | {"batch_size": 4, "accumulate": 4})

    assert learn(spec, model, num_samples=num_samples) == [bool(update) for update in updates]

    whole_updates = [slice(start, min(start + 16, num_samples)) for start in range(0, num_samples, 16)]
    reference(lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.1), expected, whole_updates)
    for name, value in expected.state_dict().items():
        assert torch.allclose(model.state_dict()[name], value, atol=1e-6), name


def test_the_head_has_a_learning_rate_of_its_own():
    spec, model, expected = TrialSpec(**PLAIN, head_lr=10), line(), line()
    head = set(expected.head.parameters())

    def make(weights):
        groups = [{"params": [each for each in weights if each not in head], "lr": 0.1}, {"params": [*head], "lr": 1.0}]
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=0.1)

    learn(spec, model)
    reference(lambda weights: make(list(weights)), expected, BATCHES)

    assert all(
        torch.allclose(model.state_dict()[name], value, atol=1e-5) for name, value in expected.state_dict().items()
    )


@pytest.mark.parametrize("decay_norms", [True, False])
def test_norms_and_biases_can_be_without_weight_decay(decay_norms):
    optimization = Optimization(TrialSpec(**PLAIN, decay_norms=decay_norms), line())

    decays = {
        tuple(p.shape): group["weight_decay"] for group in optimization.optimizer.param_groups for p in group["params"]
    }
    own = 0.1 if decay_norms else 0.0
    assert decays == {(4, 1, 3, 3): 0.1, (3, 4): 0.1, (4,): own, (3,): own}
    assert len(optimization.optimizer.param_groups) == (1 if decay_norms else 2)


@pytest.mark.parametrize("fields", [{"adapt": "head"}, {"freeze_backbone_epochs": 2}], ids=str)
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_while_the_backbone_is_frozen_the_head_alone_changes(fields, optimizer):
    spec, model = TrialSpec(**PLAIN, **fields, optimizer=optimizer), line()
    before = deepcopy(model.state_dict())

    learn(spec, model, epochs=2)

    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}
    assert not model.norm.training and model.head.training


def test_after_the_frozen_epochs_everything_is_trained():
    spec, model = TrialSpec(**PLAIN, freeze_backbone_epochs=1), line()
    before = deepcopy(model.state_dict())

    learn(spec, model, epochs=2)

    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.norm.training


def test_what_a_network_has_frozen_itself_stays_frozen():
    model = line()
    model.conv.requires_grad_(False)
    before = deepcopy(model.state_dict())

    learn(TrialSpec(**PLAIN, freeze_backbone_epochs=1), model, epochs=2)

    assert torch.equal(model.conv.weight, before["conv.weight"])
    assert not torch.equal(model.norm.weight, before["norm.weight"])


def frozen_line(image_shape, num_classes):
    return Line(image_shape, num_classes).requires_grad_(False)


@pytest.mark.parametrize("frozen_epochs", [0, 1])
def test_the_head_of_a_frozen_network_is_trained(frozen_epochs):
    model = build_classifier(f"{__name__}:frozen_line", (1, 8, 8), 3)
    before = deepcopy(model.state_dict())

    learn(TrialSpec(**PLAIN, freeze_backbone_epochs=frozen_epochs), model, epochs=2)

    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}


LORA = {"network": TINY_TRANSFORMER, "adapt": "lora", "lora_rank": 2, "optimizer": "adamw", "lr": 0.01}


def test_lora_trains_the_low_rank_parts_and_the_head_alone(digits):
    spec = short_spec(**LORA, network_options={"batch_norm": True})
    model = fresh_classifier(spec, digits)
    before = deepcopy(model.state_dict())
    own = {id(parameter) for parameter in (*lora_parameters(model), *model.classes.parameters())}
    expected = {name for name, parameter in model.named_parameters() if id(parameter) in own}
    images = torch.randn(32, 1, 8, 8)
    optimization = Optimization(spec, model)

    for epoch in (1, 2):
        optimization.begin_epoch(epoch)
        optimization.learn(functional.cross_entropy(model(images), torch.arange(32) % 10), 0, 32)

    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == expected and model.encoder.training and not model.norm.training


def test_the_loaded_classifier_has_the_merged_weights_under_the_networks_names(digits, tmp_path):
    spec = short_spec(**LORA, epochs=2)
    rows, _ = whole(spec, digits, tmp_path)

    model = load_classifier(spec, digits, tmp_path, compute())

    plain = build_classifier(TINY_TRANSFORMER, digits.image_shape, 10)
    assert list(model.state_dict()) == list(plain.state_dict())
    again = list(train(spec.model_copy(update={"epochs": 3}), digits, setting_of(digits, tmp_path)))
    assert [row.epoch for row in again] == [3] and len(rows) == 2


EVERYTHING = {
    "label_smoothing": 0.1,
    "optimizer": "adamw",
    "schedule": "cosine",
    "clip_norm": 0.5,
    "accumulate": 3,
    "cutmix_alpha": 1.0,
    "mixup_alpha": 0.4,
    "head_lr": 3.0,
    "freeze_backbone_epochs": 2,
    "decay_norms": False,
    "random_resized_crop": 0.5,
    "color_jitter": 0.4,
    "ema_decay": 0.9,
    "lr": 0.01,
}
CASES = {
    "everything": EVERYTHING,
    "frozen to the middle": {"freeze_backbone_epochs": 2},
    "head": {"adapt": "head", "optimizer": "adamw"},
    "lora and everything": {**EVERYTHING, **LORA},
}


@pytest.mark.parametrize("case", CASES)
def test_two_and_two_epochs_are_four_bit_for_bit(digits, tmp_path, case):
    spec = short_spec(**CASES[case])
    rows, expected = whole(spec, digits, tmp_path / "whole")

    whole(spec, digits, tmp_path / "parts", stop_after=2)
    rest, found = whole(spec, digits, tmp_path / "parts")

    assert rest == rows[2:] and timeless(load_checkpoint(tmp_path / "parts").rows) == rows
    assert_same_state(found, expected)


@pytest.mark.parametrize("adapt", ["full", "lora"])
def test_a_pretrained_transformer_with_frozen_epochs_resumes_and_its_weights_load_in_its_library(
    digits, tmp_path, adapt
):
    fields = {"network": "timm:test_vit", "network_options": {"patch_size": 4}}
    pretrained = build_classifier(fields["network"], (3, 8, 8), 7, options=fields["network_options"])
    torch.save(pretrained.state_dict(), tmp_path / "vit.pth")
    weights = WeightsFile.open(tmp_path / "vit.pth")
    spec = short_spec(
        **fields, pretrained=str(weights.path), freeze_backbone_epochs=2, adapt=adapt, optimizer="adamw", lr=1e-3
    )
    rows, expected = whole(spec, digits, tmp_path / "whole", weights=weights)

    whole(spec, digits, tmp_path / "parts", stop_after=1, weights=weights)
    rest, found = whole(spec, digits, tmp_path / "parts", weights=weights)

    assert rest == rows[1:]
    assert_same_state(found, expected)
    trained = load_classifier(spec, digits, tmp_path / "whole", compute()).state_dict()
    timm = pytest.importorskip("timm")
    timm.create_model("test_vit", img_size=8, patch_size=4, in_chans=1, num_classes=10).load_state_dict(trained)
    is_kept = torch.equal(trained["blocks.0.mlp.fc1.bias"], pretrained.blocks[0].mlp.fc1.bias)
    assert is_kept == (adapt == "lora")
    assert not torch.equal(trained["blocks.0.mlp.fc1.weight"], pretrained.blocks[0].mlp.fc1.weight)


@pytest.mark.parametrize("field", ["optimizer", "schedule", "adapt"])
def test_an_unknown_name_is_refused(digits, field):
    with pytest.raises(ValidationError, match="literal_error"):
        TrialSpec.model_validate({field: "unknown"})
    spec = short_spec(epochs=1, switch_epoch=0).model_copy(update={field: "unknown"})
    with pytest.raises((KeyError, AssertionError), match="unknown"):
        list(train(spec, digits, setting_of(digits)))
