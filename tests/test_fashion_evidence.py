"""Slow evidence on Fashion-MNIST-BG-LT: the effect that the paper starts from, and that the generator transforms.

    pytest -m slow tests/test_fashion_evidence.py -s

Prints the figures. Set GITDIST_TEST_STORE to a store directory to keep (or reuse) the trained generator.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from gitdist.data.dataset import Dataset, prepare
from gitdist.data.nuisance import transform
from gitdist.device import Compute
from gitdist.generator.kinds import load_generator, obtain_artifact
from gitdist.seeds import numpy_rng
from gitdist.spec import DataSpec, TrialSpec
from gitdist.spec.file import load_study
from gitdist.store import Store
from gitdist.trial.checkpoint import load_classifier
from gitdist.trial.ekld import EkldRequest, ekld_set
from gitdist.trial.evaluation import Predictor, evaluate
from gitdist.trial.training import TrialSetting, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
STUDY = load_study(Path(__file__).parents[1] / "studies" / "fashion_bg.yaml")
IMAGES, DRAWS = 20, 16  # per class; per image


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(Path(os.environ.get("GITDIST_TEST_STORE") or tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module")
def dataset(store) -> Dataset:
    return prepare(STUDY.data, store)


@pytest.fixture(scope="module")
def chosen(dataset) -> np.ndarray:
    labels = dataset.train.labels
    return np.concatenate([np.flatnonzero(labels == index)[:IMAGES] for index in range(dataset.num_classes)])


@pytest.fixture(scope="module")
def draws(store, dataset, chosen) -> np.ndarray:
    """Draws of the trained generator, uint8 ``[n, DRAWS, 1, 28, 28]``."""
    compute = Compute.resolve()
    artifact = obtain_artifact(STUDY.generator, dataset, store, lambda step: None, compute)
    generator = load_generator(STUDY.generator, dataset, artifact, compute)
    codes = generator.encode(torch.tensor(dataset.train.images[chosen]), torch.tensor(dataset.train.clean[chosen]))
    drawn = generator.draw(codes.repeat_interleave(DRAWS, 0), numpy_rng(0, "evidence/draws"))
    return drawn.numpy().reshape(len(chosen), DRAWS, *dataset.image_shape)


def train_reference(nuisance: str, store: Store, directory: Path):
    """A classifier of 1,000 images a class: not long-tailed, so it can judge every class."""
    spec = DataSpec(source="fashion-mnist", nuisance=nuisance, profile={"kind": "none", "largest": 1000})
    data = prepare(spec, store)
    trial = TrialSpec(epochs=10, fraction=0, sampler="instance", lr_milestones=(6, 8), lr_decay=0.1, lr_warmup_epochs=1)
    compute = Compute.resolve()
    for _ in train(trial, data, TrialSetting(compute=compute, directory=directory, evaluation_every=10)):
        pass
    return load_classifier(trial, data, directory, compute), data, compute


def predict(reference, images: np.ndarray) -> np.ndarray:
    model, data, compute = reference
    with torch.inference_mode():
        return Predictor(model, data, compute)(np.ascontiguousarray(images)).argmax(1).numpy()


def background(images: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Mean level of the pixels that are background in the clean image, float64 ``[...]``."""
    mask = clean == 0
    return (images * mask).sum((-1, -2, -3)) / mask.sum((-1, -2, -3))


def test_draws_of_one_image_differ_in_background_as_the_data_does(dataset, chosen, draws):
    clean = dataset.train.clean[chosen]
    spread = background(draws.astype(np.float64), clean[:, None]).std(1).mean()
    of_data = background(dataset.train.images[chosen].astype(np.float64), clean).std()
    print(f"\nbackground level: std over {DRAWS} draws of an image {spread:.1f}, over the data {of_data:.1f}")
    assert spread >= 0.5 * of_data


def test_draws_keep_the_garment(dataset, chosen, draws, store, tmp_path):
    reference = train_reference("background", store, tmp_path)
    labels = dataset.train.labels[chosen]
    inputs = predict(reference, dataset.train.images[chosen])
    true = transform("background", np.repeat(dataset.train.clean[chosen], DRAWS, 0), numpy_rng(0, "evidence/true"))
    answers = predict(reference, draws.reshape(-1, *dataset.image_shape))
    kept = (answers == np.repeat(inputs, DRAWS)).mean()
    right = (answers == np.repeat(labels, DRAWS)).mean()
    right_true = (predict(reference, true) == np.repeat(labels, DRAWS)).mean()
    print(f"\nreference's answer kept on {kept:.3f} of draws; right on {right:.3f}, on true T {right_true:.3f}")
    assert kept >= 0.8


def test_a_classifier_of_clean_images_keeps_its_answer_on_draws_without_their_background(
    dataset, chosen, draws, store, tmp_path
):
    reference = train_reference("none", store, tmp_path)
    clean = dataset.train.clean[chosen]
    foreground = np.where(clean[:, None] == 0, 0, draws).astype(np.uint8)
    answers = predict(reference, foreground.reshape(-1, *dataset.image_shape))
    kept = (answers == np.repeat(predict(reference, clean), DRAWS)).mean()
    raw = (
        predict(reference, draws.reshape(-1, *dataset.image_shape)) == np.repeat(predict(reference, clean), DRAWS)
    ).mean()
    print(f"\nclean classifier's answer kept on {kept:.3f} of draws with the background removed, {raw:.3f} with it")
    assert kept >= 0.8


def test_under_erm_small_classes_are_less_invariant_than_large_ones(dataset, store, tmp_path):
    trial = TrialSpec(epochs=16, fraction=0, sampler="instance", lr_milestones=(10, 14), lr_decay=0.1)
    request = EkldRequest(split="test", images_per_class=40, transformations=20, seed=0)
    pairs, compute = ekld_set(dataset, request, store), Compute.resolve()
    for _ in train(trial, dataset, TrialSetting(compute=compute, directory=tmp_path, evaluation_every=16)):
        pass
    model = load_classifier(trial, dataset, tmp_path, compute)
    ekld = evaluate(model, dataset.test, pairs, dataset, compute).class_values["ekld_per_class"]
    means = {name: ekld[mask].mean() for name, mask in dataset.groups.as_dict().items()}
    print("\neKLD (nats): " + ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
    assert means["few"] > means["many"]
