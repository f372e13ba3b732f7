"""A generator's quality, judged by an untrained classifier: how good the judge is does not matter to the arithmetic."""

import json

import pytest
import torch

from gitdist.compute import Compute
from gitdist.data.dataset import Dataset, prepare
from gitdist.generator.oracle import IdentityGenerator, OracleGenerator
from gitdist.spec import DataSpec, ProfileSpec
from gitdist.store import Store
from gitdist.study.quality import Quality, measure_quality
from gitdist.trial.classifier import build_classifier
from gitdist.trial.reference import Reference

CPU = Compute.resolve("float32", "cpu")


@pytest.fixture(scope="module", params=["background", "dilation-erosion", "rotation", "none"])
def dataset(request, tmp_path_factory) -> Dataset:
    profile = ProfileSpec(kind="exponential", largest=20, factor=0.5)
    spec = DataSpec(nuisance=request.param, profile=profile, validation_per_class=12)
    return prepare(spec, Store(tmp_path_factory.mktemp("store")))


def measured(dataset: Dataset, generator, **changes) -> Quality:
    model = build_classifier("resnet20", 1, dataset.num_classes, rng=torch.Generator().manual_seed(1)).eval()
    reference = Reference(model=model, dataset=dataset, epochs=0)
    numbers = {"images": 4, "draws": 6, "seed": 0, **changes}
    return measure_quality(generator, dataset, reference, CPU, **numbers)


def test_the_identity_varies_nothing_and_keeps_what_the_images_keep(dataset):
    quality = measured(dataset, IdentityGenerator(), draws=2)
    assert (quality.generator.pixel_std, quality.generator.pairwise_l1) == (0, 0)
    assert quality.generator.nuisance_std in (0, None)
    assert quality.kept_draws.tolist() == quality.kept_images.tolist()
    assert quality.images == 40


def test_the_true_nuisance_varies_as_itself(dataset):
    if dataset.nuisance == "none":
        quality = measured(dataset, IdentityGenerator(), draws=2)
        assert quality.true is None and quality.kept_true is None and quality.ratios() is None
        return
    quality = measured(dataset, OracleGenerator(dataset.nuisance), draws=12)
    told = {"pixel_std", "pairwise_l1"} | (set() if dataset.nuisance == "rotation" else {"nuisance_std"})
    assert quality.ratios() == {name: pytest.approx(1, abs=0.15) for name in told}
    assert quality.generator.object_std == (0 if dataset.nuisance == "background" else None)
    again = measured(dataset, OracleGenerator(dataset.nuisance), draws=12)
    assert again.generator == quality.generator
    assert quality.generator != quality.true  # other draws of the same


def test_the_figures_are_json(dataset):
    figures = json.loads(json.dumps(measured(dataset, IdentityGenerator(), draws=2).as_json(dataset.class_names)))
    assert [row["class"] for row in figures["label_kept"]["classes"]] == list(dataset.class_names)
    assert figures["label_kept"]["mean"]["images"] == figures["label_kept"]["mean"]["draws"]
    assert set(figures["variation"]) == {"generator", "true", "ratio"}
