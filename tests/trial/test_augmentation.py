import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torch import Tensor

from gitdist.balancing.losses import LOSSES
from gitdist.data.dataset import Dataset
from gitdist.data.nuisance import transform
from gitdist.errors import SpecError
from gitdist.networks import build_classifier
from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec
from gitdist.store import Store
from gitdist.trial.augmentation import CropFlip, InputPipeline, Normaliser, epoch_mixup
from gitdist.trial.checkpoint import load_checkpoint
from gitdist.trial.mixing import replaced_samples
from gitdist.trial.plan import build_loss, epoch_indices
from gitdist.trial.stages import train_in_stages
from gitdist.trial.training import EpochTrainer, TrialSetting, train
from tests.trial.toys import (
    assert_same_state,
    compute,
    setting_of,
    short_spec,
    small_digits,
    stream_of,
    timeless,
    whole,
)

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 3, 7, 9), dtype=np.uint8))


def crop_flip_one_by_one(images, padding, crop_flip):
    """Pad, cut and mirror each image with slices."""
    result = []
    for index, image in enumerate(images.numpy()):
        if crop_flip.top is not None:
            padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)))
            top, left = int(crop_flip.top[index]), int(crop_flip.left[index])
            image = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
        if crop_flip.flip is not None and crop_flip.flip[index]:
            image = image[:, :, ::-1]
        result.append(image)
    return np.stack(result)


@pytest.mark.parametrize(("padding", "flip"), [(0, False), (2, False), (0, True), (4, True)])
def test_crop_and_flip_equal_those_of_single_images(padding, flip):
    crop_flip = CropFlip.draw(40, padding, flip, np.random.default_rng(1))

    assert np.array_equal(crop_flip(IMAGES).numpy(), crop_flip_one_by_one(IMAGES, padding, crop_flip))


def test_a_batch_is_cropped_and_flipped_as_in_the_whole_epoch():
    crop_flip = CropFlip.draw(40, 2, True, np.random.default_rng(2))

    assert torch.equal(crop_flip(IMAGES[8:24], start=8), crop_flip(IMAGES)[8:24])


def test_corners_and_mirrorings_are_uniform():
    crop_flip = CropFlip.draw(30_000, 1, True, np.random.default_rng(3))
    corners = np.bincount(3 * crop_flip.top.numpy() + crop_flip.left.numpy(), minlength=9) / 30_000

    assert corners == pytest.approx(np.full(9, 1 / 9), abs=4 * (8 / 81 / 30_000) ** 0.5)
    assert crop_flip.flip.double().mean().item() == pytest.approx(0.5, abs=4 * 0.5 / 30_000**0.5)


def test_crop_and_flip_leave_the_given_images_unchanged():
    before = IMAGES.clone()
    CropFlip.draw(40, 2, True, np.random.default_rng(4))(IMAGES)

    assert torch.equal(IMAGES, before)


def test_normalised_pixels_follow_the_formula_in_channels_last():
    mean, std = (0.2, 0.5, 0.7), (0.3, 0.1, 0.25)

    normalised = Normaliser(mean, std)(IMAGES)

    expected = (IMAGES.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert torch.allclose(normalised.double(), expected, atol=1e-5)
    assert normalised.dtype == torch.float32 and normalised.is_contiguous(memory_format=torch.channels_last)


COUNT, BATCH = 20, 8  # the last batch has 4
SIZES = np.array([90, 30, 5])
RNG = torch.Generator().manual_seed(0)
INPUTS = torch.randn(COUNT, 3, 4, 4, generator=RNG).to(memory_format=torch.channels_last)
LOGITS = torch.randn(COUNT, 3, generator=RNG)
LABELS = torch.randint(0, 3, (COUNT,), generator=RNG)


def spec_of(**fields):
    return short_spec(batch_size=BATCH, mixup_alpha=0.4, **fields)


def blended(spec, loss, epoch=2):
    """Return inputs and losses of an epoch's batches after mixup."""
    blend = epoch_mixup(spec, epoch, COUNT)
    parts = [slice(start, start + BATCH) for start in range(0, COUNT, BATCH)]
    pairs = [blend(INPUTS[part], loss, part.start) for part in parts]
    losses = [loss_of(LOGITS[part], LABELS[part]) for part, (_, loss_of) in zip(parts, pairs, strict=True)]
    return torch.cat([inputs for inputs, _ in pairs]), losses


def drawn(spec, epoch=2):
    """Return lambda and the partner's index in the epoch, of each sample."""
    rng = numpy_rng(spec.seed, "trial/mixup", epoch)
    shares = rng.beta(spec.mixup_alpha, spec.mixup_alpha, 3)
    partners = [BATCH * batch + rng.permutation(size) for batch, size in enumerate((8, 8, 4))]
    return np.repeat(shares, (8, 8, 4)), np.concatenate(partners)


def test_each_sample_is_blended_with_its_partner_of_the_same_batch():
    inputs, _ = blended(spec_of(), build_loss(spec_of(), SIZES, 2))

    shares, partners = drawn(spec_of())
    for sample, (share, partner) in enumerate(zip(shares, partners, strict=True)):
        assert torch.allclose(inputs[sample], share * INPUTS[sample] + (1 - share) * INPUTS[partner], atol=1e-6)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(partners // BATCH, np.arange(COUNT) // BATCH)


@pytest.mark.parametrize("weights", ["none", "inverse"])
@pytest.mark.parametrize("name", list(LOSSES))
def test_the_loss_is_blended_as_the_inputs_are(name, weights):
    loss = build_loss(spec_of(loss=name, class_weights=weights), SIZES, 2)

    _, losses = blended(spec_of(loss=name), loss)

    shares, partners = drawn(spec_of())
    for batch, value in enumerate(losses):
        part = slice(BATCH * batch, BATCH * (batch + 1))
        own, other = loss(LOGITS[part], LABELS[part]), loss(LOGITS[part], LABELS[partners[part]])
        share = shares[part.start]
        assert value.item() == pytest.approx((share * own + (1 - share) * other).item(), rel=1e-6)


def test_lambda_follows_its_beta_distribution():
    ones, zeros = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    spec, loss = short_spec(batch_size=2, mixup_alpha=0.4), build_loss(spec_of(), SIZES, 2)
    blend = epoch_mixup(spec, 1, 8000)
    pairs = [blend(torch.cat([ones, zeros]), loss, start)[0].flatten().tolist() for start in range(0, 8000, 2)]
    shares = [pair[0] for pair in pairs if pair[1] > 0]  # half of the batches: the partner is the other one

    assert len(shares) == pytest.approx(2000, abs=4 * 1000**0.5)
    assert all(sum(pair) == pytest.approx(1) for pair in pairs)
    assert kstest(shares, beta(0.4, 0.4).cdf).pvalue > 1e-3


def test_without_alpha_inputs_and_loss_are_the_very_same():
    spec = short_spec(batch_size=BATCH)
    loss = build_loss(spec, SIZES, 2)

    inputs, same = epoch_mixup(spec, 1, COUNT)(INPUTS, loss, 0)

    assert inputs is INPUTS and same is loss


def test_every_epoch_has_other_choices():
    spec, loss = spec_of(), build_loss(spec_of(), SIZES, 2)
    first, again, other = (blended(spec, loss, epoch)[0] for epoch in (1, 1, 2))

    assert torch.equal(first, again) and not torch.equal(first, other)


NUISANCES = ("rotation", "background", "dilation-erosion")


def oracle(**fields) -> TrialSpec:
    plain = {"sampler": "instance", "fraction": 0.0, "crop_padding": 0, "flip": False, "true_nuisance": True}
    return short_spec(**{**plain, **fields})


def inputs_of(spec: TrialSpec, dataset: Dataset, epochs: int) -> list[Tensor]:
    """Return the inputs of the network in each epoch, ``[N, C, H, W]``, without training anything from them."""
    trainer = EpochTrainer(spec, dataset, stream_of(dataset), build_classifier("resnet20", (1, 8, 8), 10), compute())
    seen: list[Tensor] = []
    trainer.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    result = []
    for epoch in range(1, epochs + 1):
        trainer.run(epoch)
        result.append(torch.cat(seen))
        seen.clear()
    return result


@pytest.fixture(scope="module", params=NUISANCES)
def data(request, tmp_path_factory) -> Dataset:
    root = tmp_path_factory.mktemp(request.param)
    return small_digits(root, request.param, kind="exponential", largest=30, factor=0.2)


@pytest.mark.parametrize("batch_size", [32, 50])
def test_every_sample_of_every_epoch_is_its_clean_image_under_a_fresh_draw(data, batch_size):
    spec = oracle(batch_size=batch_size, switch_epoch=1, epochs=3)
    seen = inputs_of(spec, data, epochs=3)
    for epoch, inputs in enumerate(seen, 1):
        indices = epoch_indices(spec, data.train.labels, data.class_sizes, epoch)
        assert np.array_equal(np.sort(indices), np.arange(len(indices)))  # ERM: each image once, after the switch too
        drawn = transform(data.nuisance, data.train.clean[indices], numpy_rng(spec.seed, "trial/nuisance", epoch))
        assert torch.equal(inputs, Normaliser(data.mean, data.std)(torch.from_numpy(drawn)))


def test_draws_crop_and_flip_come_after_the_true_nuisance(digits):
    spec = oracle(sampler="class-balanced", fraction=0.5, switch_epoch=0, epochs=1, crop_padding=1, flip=True)
    (seen,) = inputs_of(spec, digits, epochs=1)
    labels = digits.train.labels
    indices = epoch_indices(spec, labels, digits.class_sizes, 1)
    images = transform(digits.nuisance, digits.train.clean[indices], numpy_rng(spec.seed, "trial/nuisance", 1))
    mask = replaced_samples(spec, labels[indices], digits.class_sizes, 1)
    stream = stream_of(digits)
    stream.prefetch(np.flatnonzero(digits.class_sizes < spec.threshold))
    for start in range(0, len(indices), spec.batch_size):
        batch = slice(start, start + spec.batch_size)
        images[batch][mask[batch]] = stream.take(labels[indices][batch][mask[batch]])
    expected = InputPipeline(spec, digits, torch.device("cpu")).for_epoch(1, len(indices))(torch.from_numpy(images), 0)
    assert mask.any() and not mask.all() and torch.equal(seen, expected)


def test_the_oracle_never_touches_the_stream(digits):
    assert [row.draws for row in train(oracle(epochs=2), digits, setting_of(digits, stream=None))] == [0, 0]


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_resumed_oracle_is_bit_identical_to_uninterrupted(data, tmp_path, precision):
    spec = oracle(fraction=0.5, mixup_alpha=0.4, randaugment_ops=1, crop_padding=1, flip=True, epochs=3)
    rows, expected = whole(spec, data, tmp_path / "whole", precision)
    for _ in range(spec.epochs):
        next(train(spec, data, setting_of(data, tmp_path / "parts", precision)))
    found = load_checkpoint(tmp_path / "parts")
    assert timeless(found.rows) == rows
    assert_same_state(found, expected)


def test_the_prefix_of_the_oracle_is_not_that_of_plain_training(digits, tmp_path):
    store = Store(tmp_path / "store")
    for number, spec in enumerate([oracle(true_nuisance=False, switch_epoch=2), oracle(switch_epoch=2)]):
        alone, _ = whole(spec, digits, tmp_path / f"alone{number}")
        (tmp_path / str(number)).mkdir()
        staged = train_in_stages(spec, digits, setting_of(digits, tmp_path / str(number)), store)
        assert timeless([row for rows in staged for row in rows]) == alone
    assert len(list((store.root / "prefix").iterdir())) == 2


def test_a_data_set_without_a_known_nuisance_is_refused(tmp_path):
    plain = small_digits(tmp_path, "none", kind="exponential", largest=20, factor=0.5)
    with pytest.raises(SpecError, match="trial.true_nuisance needs .* data.nuisance is 'none'"):
        next(train(oracle(), plain, TrialSetting(compute=compute())))
