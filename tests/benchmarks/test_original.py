"""The baseline computes what gitdist computes; else another function would be timed."""

import numpy as np
import pytest
import torch
from original import OriginalTrainer, PilImages, PlainMunit, evaluate_originally, normalisation, pil_image, v1

from gitdist.data.dataset import Dataset, prepare
from gitdist.device import Compute
from gitdist.generator.munit.networks import AutoEncoder, initialise
from gitdist.spec import DataSpec, EvaluationSpec, MunitSpec, ProfileSpec, TrialSpec
from gitdist.store import Store
from gitdist.trial.augmentation import Normaliser
from gitdist.trial.checkpoint import fresh_classifier
from gitdist.trial.evaluation import evaluate


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Dataset:
    profile = ProfileSpec(kind="exponential", largest=20, factor=0.2)
    spec = DataSpec(source="digits", nuisance="background", profile=profile, validation_per_class=5)
    return prepare(spec, Store(tmp_path_factory.mktemp("digits")))


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32)])
def test_the_plain_network_is_the_same_function_of_the_same_weights(channels, side):
    spec, rng = MunitSpec(dim=8, num_res=2, mlp_dim=16), torch.Generator().manual_seed(0)
    own, plain = AutoEncoder(spec, channels), PlainMunit(spec, channels)
    initialise(own, None, rng)
    with torch.no_grad():
        for upsampling in own.decoder.upsamplings:
            upsampling.gain.normal_(1, 0.2, generator=rng)
            upsampling.bias.normal_(0, 0.2, generator=rng)
    plain.copy_weights(own)
    images = torch.rand(3, channels, side, side, generator=rng) * 2 - 1
    styles = torch.randn(3, 8, generator=rng)
    with torch.no_grad():
        content = own.content_encoder(images)
        torch.testing.assert_close(plain.content_encoder(images), content, rtol=0, atol=1e-4)
        torch.testing.assert_close(plain.style_encoder(images), own.style_encoder(images), rtol=0, atol=1e-4)
        decoded = own.decode(content, styles)
        torch.testing.assert_close(plain.decode(content, styles), decoded, rtol=0, atol=1e-4)
    assert decoded.std() > 0.05


def test_the_pil_pipeline_gives_the_same_input(digits):
    train = digits.train
    loaded = PilImages(train.images, train.labels, v1.Compose([v1.ToTensor(), normalisation(digits)]))
    expected = Normaliser(digits.mean, digits.std)(torch.tensor(train.images[:5]))
    torch.testing.assert_close(torch.stack([loaded[index][0] for index in range(5)]), expected, rtol=0, atol=1e-5)
    assert [loaded[index][1] for index in range(5)] == train.labels[:5].tolist()


def test_the_original_evaluation_finds_the_same_accuracy(digits):
    model = fresh_classifier(TrialSpec(), digits)
    own = evaluate(model, digits.validation, None, digits, Compute.resolve("float32", "cpu"))
    spec = EvaluationSpec(epoch_images_per_class=2, epoch_transformations=3)
    accuracy, ekld = evaluate_originally(model, digits, spec, torch.device("cpu"))
    assert accuracy == own.scalars["balanced_accuracy"]
    assert ekld is not None and np.isfinite(ekld) and ekld > 0


def test_the_original_trainer_generates_whole_batches_after_the_switch_only(digits):
    spec = TrialSpec(epochs=2, switch_epoch=1, batch_size=32, crop_padding=2, flip=True, lr_warmup_epochs=0)
    munit = PlainMunit(MunitSpec(dim=4, num_res=1, mlp_dim=8), 1).eval()
    trainer = OriginalTrainer(spec, digits, torch.device("cpu"), 0, munit)
    generated = []
    for epoch in (1, 2):
        trainer.run(epoch)
        generated.append(trainer.generated)
    assert generated == [0, len(digits.train.labels)]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_loader_gives_every_epoch_its_own_images_by_the_same_workers(digits, num_workers):
    spec = TrialSpec(epochs=2, batch_size=32, sampler="instance", randaugment_ops=2, lr_warmup_epochs=0)
    trainer = OriginalTrainer(spec, digits, torch.device("cpu"), num_workers)
    found, workers = [], []
    for indices in ([3, 1, 2], [50, 0]):
        trainer._indices[:] = indices
        found.append([label for _, batch in trainer._loader for label in batch.tolist()])
        workers.append([worker.pid for worker in getattr(trainer._loader._iterator, "_workers", ())])
    assert found == [digits.train.labels[indices].tolist() for indices in ([3, 1, 2], [50, 0])]
    assert workers[0] == workers[1] and len(workers[0]) == num_workers


def test_the_original_transforms_have_randaugment_where_the_trial_has_it(digits):
    image = pil_image(digits.train.images[0])
    for ops, num_results in ((0, 1), (2, 2)):
        spec = TrialSpec(randaugment_ops=ops, randaugment_magnitude=30)
        transform = OriginalTrainer(spec, digits, torch.device("cpu"), 0)._transforms()
        results = {transform(image).numpy().tobytes() for _ in range(20)}
        assert min(len(results), 2) == num_results
