"""A generator's quality, judged by an untrained classifier: how good the judge is does not matter to the arithmetic."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from gitdist.data.dataset import Dataset, prepare
from gitdist.device import Compute
from gitdist.generator.oracle import IdentityGenerator, OracleGenerator
from gitdist.networks import build_classifier
from gitdist.spec import DataSpec, ProfileSpec
from gitdist.store import Store
from gitdist.study.resources.quality import Quality, measure_quality
from gitdist.trial.evaluation import choose_indices
from gitdist.trial.reference import Reference

CPU = Compute.resolve("float32", "cpu")


@pytest.fixture(scope="module", params=["background", "dilation-erosion", "rotation", "none"])
def dataset(request, tmp_path_factory) -> Dataset:
    profile = ProfileSpec(kind="exponential", largest=20, factor=0.5)
    spec = DataSpec(nuisance=request.param, profile=profile, validation_per_class=12)
    return prepare(spec, Store(tmp_path_factory.mktemp("store")))


class _Shift(IdentityGenerator):
    """Draws differ by as many grey levels as the image's mean level has hundreds."""

    def draw(self, codes, rng):
        levels = codes.float().mean((1, 2, 3), keepdim=True) / 100
        return (codes + (levels * rng.integers(0, 50)).to(torch.uint8)).to(torch.uint8)


def measured(dataset: Dataset, generator, **changes) -> Quality:
    model = build_classifier(
        "resnet20", dataset.image_shape, dataset.num_classes, rng=torch.Generator().manual_seed(1)
    ).eval()
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


def test_classes_count_equally_whatever_their_number_of_validation_images(dataset):
    """Class 0 has every image eight times; a mean over images would shift, one over classes does not."""
    split = dataset.validation
    once = np.concatenate([np.flatnonzero(split.labels == label)[:2] for label in range(1, dataset.num_classes)])
    results = []
    for times in (1, 8):
        rows = np.concatenate([np.repeat(np.flatnonzero(split.labels == 0)[:1], times), once])
        data = replace(dataset)
        parts = {name: getattr(split, name)[rows] for name in ("images", "clean", "labels", "source")}
        data.__dict__["validation"] = replace(split, **parts)
        results.append(measured(data, _Shift(), images=99))
    assert results[0].generator.pixel_std == pytest.approx(results[1].generator.pixel_std, rel=1e-12)
    assert results[0].images == 19 and results[1].images == 26


def test_a_class_without_validation_images_has_no_shares(dataset):
    split = dataset.validation
    rows = np.flatnonzero(split.labels > 0)
    data = replace(dataset)
    parts = {name: getattr(split, name)[rows] for name in ("images", "clean", "labels", "source")}
    data.__dict__["validation"] = replace(split, **parts)
    figures = measured(data, IdentityGenerator(), draws=2).as_json(data.class_names)
    assert [row["images"] is None for row in figures["label_kept"]["classes"]] == [True] + [False] * 9


def test_images_are_taken_from_as_many_groups_as_there_are(dataset):
    """The first images of a class may all show one object."""
    split = dataset.validation
    data = replace(dataset)
    data.__dict__["validation"] = replace(split, groups=np.arange(len(split.labels)) // 3)
    rows = choose_indices(data.validation, np.arange(len(split.labels)), data.num_classes, 4)
    assert [len(np.unique(data.validation.groups[split.labels == label])) for label in range(2)] == [4, 4]
    assert len(np.unique(data.validation.groups[rows])) == len(rows) == 40
    assert rows.tolist() == [12 * label + 3 * index for label in range(10) for index in range(4)]


def test_the_figures_are_json(dataset):
    figures = json.loads(json.dumps(measured(dataset, IdentityGenerator(), draws=2).as_json(dataset.class_names)))
    assert [row["class"] for row in figures["label_kept"]["classes"]] == list(dataset.class_names)
    assert figures["label_kept"]["mean"]["images"] == figures["label_kept"]["mean"]["draws"]
    assert set(figures["variation"]) == {"generator", "true", "ratio"}
