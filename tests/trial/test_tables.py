"""One line in one table adds a sampler, a loss, a network or a metric; unknown names are refused."""

from functools import partial

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from gitdist.balancing.losses import LOSSES
from gitdist.balancing.samplers import SAMPLERS
from gitdist.errors import SpecError
from gitdist.networks import NETWORKS, Network, fitting_networks
from gitdist.networks.resnets import build_cifar_resnet
from gitdist.spec import TrialSpec
from gitdist.store import Store
from gitdist.trial.canonical import training_key
from gitdist.trial.evaluation import EkldRequest, ekld_set
from gitdist.trial.metrics import PAIR_METRICS
from gitdist.trial.plan import build_loss, class_probabilities, class_weights, epoch_indices
from gitdist.trial.training import train
from tests.trial.toys import setting_of, short_spec


def test_a_sampler(digits, monkeypatch):
    def power(sizes, progress, *, effective_beta):
        return sizes**effective_beta / (sizes**effective_beta).sum()

    monkeypatch.setitem(SAMPLERS, "power", power)
    spec = short_spec(sampler="power", effective_beta=0.25, epochs=2)
    sizes = digits.class_sizes

    assert class_probabilities(spec, sizes, 2) == pytest.approx(sizes**0.25 / (sizes**0.25).sum())
    assert len(list(train(spec, digits, setting_of(digits)))) == 2
    # Trainings that differ in the field that it reads are different trainings.
    assert training_key(spec, sizes) != training_key(spec.model_copy(update={"effective_beta": 0.5}), sizes)


def test_a_loss(digits, monkeypatch):
    def smoothed(classes, *, focal_gamma):
        return lambda logits, labels: functional.cross_entropy(
            logits, labels, classes.weight, label_smoothing=focal_gamma
        )

    monkeypatch.setitem(LOSSES, "smoothed", smoothed)
    spec = short_spec(loss="smoothed", focal_gamma=0.1, epochs=1, switch_epoch=0)
    logits, labels = torch.randn(4, 10), torch.arange(4)

    assert build_loss(spec, digits.class_sizes, 1)(logits, labels) == functional.cross_entropy(
        logits, labels, label_smoothing=0.1
    )
    assert len(list(train(spec, digits, setting_of(digits)))) == 1
    other = spec.model_copy(update={"focal_gamma": 0.2})
    assert training_key(spec, digits.class_sizes) != training_key(other, digits.class_sizes)


def test_a_network(digits, monkeypatch):
    network = Network(build=partial(build_cifar_resnet, 1), large_images=False)
    monkeypatch.setitem(NETWORKS, "resnet8", network)
    spec = short_spec(network="resnet8", epochs=1, switch_epoch=0)

    assert "resnet8" in fitting_networks(digits.image_shape)
    assert len(list(train(spec, digits, setting_of(digits)))) == 1


def test_a_metric(digits, tmp_path, monkeypatch):
    monkeypatch.setitem(PAIR_METRICS, "worst_kl", lambda log_p, log_q: (log_q - log_p[:, None]).abs().amax((1, 2)))
    request = EkldRequest(split="validation", images_per_class=2, transformations=2, seed=0)
    pairs = ekld_set(digits, request, Store(tmp_path))

    (row,) = train(short_spec(epochs=1, switch_epoch=0), digits, setting_of(digits, ekld=pairs))

    assert row.metrics["val/worst_kl"] == pytest.approx(np.mean(row.per_class["worst_kl_per_class"]))
    assert row.metrics["val/worst_kl"] > 0 and row.metrics["val/worst_kl_se"] > 0


@pytest.mark.parametrize("field", ["loss", "sampler", "class_weights", "threshold_kind"])
def test_an_unknown_name_is_refused_with_the_known_ones(field):
    known = TrialSpec.model_fields[field].default

    with pytest.raises(ValidationError, match=f"'{known}'.* or "):
        TrialSpec.model_validate({field: "unknown"})


@pytest.mark.parametrize("field", ["network", "loss", "sampler", "class_weights", "threshold_kind"])
def test_an_unknown_name_raises_where_it_is_looked_up_too(digits, field):
    spec = short_spec(epochs=1, switch_epoch=0).model_copy(update={field: "unknown"})

    with pytest.raises((KeyError, AssertionError, SpecError), match="unknown"):
        list(train(spec, digits, setting_of(digits)))


def test_unknown_class_weights_and_samplers_raise_in_an_epoch_that_reads_them(digits):
    spec = short_spec().model_copy(update={"class_weights": "unknown", "sampler": "unknown"})

    with pytest.raises(AssertionError, match="unknown"):
        class_weights(spec, digits.class_sizes, 2)
    with pytest.raises(KeyError, match="unknown"):
        epoch_indices(spec, digits.train.labels, digits.class_sizes, 2)
