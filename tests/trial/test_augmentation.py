import importlib
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import beta, ks_2samp, kstest, uniform
from torch import Tensor

from gitdist.balancing.losses import LOSSES
from gitdist.data.dataset import Dataset
from gitdist.data.nuisance import transform
from gitdist.errors import SpecError
from gitdist.networks import build_classifier
from gitdist.seeds import numpy_rng
from gitdist.spec import TrialSpec
from gitdist.store import Store
from gitdist.torchvision_cpu import torchvision
from gitdist.trial.augmentation import (
    ColorJitter,
    CropFlip,
    InputPipeline,
    Normaliser,
    ResizedCrop,
    cutmix_interval,
    epoch_blend,
    epoch_cutmix,
    epoch_mixup,
)
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


v2 = importlib.import_module(f"{torchvision.__name__}.transforms.v2")


def test_resized_crops_are_those_of_torchvision():
    crop = ResizedCrop.draw(40, 0.1, (7, 9), np.random.default_rng(5))

    resized = crop(IMAGES)

    for index in range(40):
        box = (int(each[index]) for each in (crop.top, crop.left, crop.height, crop.width))
        expected = v2.functional.resized_crop(IMAGES[index].float(), *box, size=[7, 9], antialias=True)
        assert (resized[index].float() - expected).abs().max() <= 0.51
    assert resized.dtype == torch.uint8 and torch.equal(crop(IMAGES[8:24], start=8), resized[8:24])


def test_a_crop_of_the_whole_image_changes_nothing():
    whole_image = torch.tensor([[0] * 40, [0] * 40, [7] * 40, [9] * 40])
    top, left, height, width = whole_image

    assert torch.equal(ResizedCrop(top=top, left=left, height=height, width=width)(IMAGES), IMAGES)


def test_boxes_have_the_distribution_of_torchvisions():
    torch.manual_seed(0)
    transform, image = v2.RandomResizedCrop(24, scale=(0.3, 1.0)), torch.zeros(3, 24, 32)
    drawn = [transform.make_params([image]) for _ in range(4000)]
    crop = ResizedCrop.draw(4000, 0.3, (24, 32), np.random.default_rng(6))

    for name in ("top", "left", "height", "width"):
        assert ks_2samp([params[name] for params in drawn], getattr(crop, name).numpy()).pvalue > 1e-3, name
    assert (crop.top + crop.height).max() <= 24 and (crop.left + crop.width).max() <= 32


@pytest.mark.parametrize(("size", "box"), [((8, 64), (0, 26, 8, 11)), ((64, 8), (26, 0, 11, 8))])
def test_where_no_box_fits_it_is_the_largest_at_the_centre_as_torchvisions(size, box):
    crop = ResizedCrop.draw(5, 1.0, size, np.random.default_rng(7))
    params = v2.RandomResizedCrop(8, scale=(1.0, 1.0)).make_params([torch.zeros(3, *size)])

    expected = tuple(params[name] for name in ("top", "left", "height", "width"))
    assert expected == box
    for index in range(5):
        assert tuple(int(each[index]) for each in (crop.top, crop.left, crop.height, crop.width)) == box


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_change_as_torchvisions_do_on_unrounded_values(channels):
    images, jitter = IMAGES[:, :channels], ColorJitter.draw(40, 0.8, np.random.default_rng(8))
    adjust = (v2.functional.adjust_brightness, v2.functional.adjust_contrast, v2.functional.adjust_saturation)

    changed = jitter(images)

    for index in range(40):
        expected = images[index].float() / 255
        for chosen in jitter.order[:, index].tolist():
            expected = adjust[chosen](expected, float(jitter.factors[chosen, index]))
        assert (changed[index].float() - 255 * expected).abs().max() <= 0.51
    assert torch.equal(jitter(images[8:24], start=8), changed[8:24])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_jitter_of_strength_0_changes_nothing(channels):
    images = torch.cat([IMAGES, IMAGES], 1)[:, :channels]

    assert torch.equal(ColorJitter.draw(40, 0.0, np.random.default_rng(8))(images), images)


def test_factors_are_uniform_and_orders_equally_likely():
    jitter = ColorJitter.draw(6000, 0.3, np.random.default_rng(9))

    assert all(kstest(factors.numpy(), uniform(0.7, 0.6).cdf).pvalue > 1e-3 for factors in jitter.factors)
    orders = np.unique(jitter.order.numpy(), axis=1, return_counts=True)[1]
    assert len(orders) == 6 and orders == pytest.approx(np.full(6, 1000), abs=4 * (1000 * 5 / 6) ** 0.5)


def test_the_pipeline_crops_and_jitters_by_the_choices_of_each_epoch_after_crop_and_flip(digits):
    spec = short_spec(random_resized_crop=0.3, color_jitter=0.5)
    images = torch.tensor(digits.train.images[:50])
    pipeline = InputPipeline(spec, digits, torch.device("cpu"))

    first, again, other = (pipeline.for_epoch(epoch, 50)(images, 0) for epoch in (1, 1, 2))

    rngs = {name: numpy_rng(spec.seed, f"trial/{name}", 1) for name in ("placement", "resized-crop", "color-jitter")}
    expected = CropFlip.draw(50, 1, True, rngs["placement"])(images)
    expected = ResizedCrop.draw(50, 0.3, (8, 8), rngs["resized-crop"])(expected)
    expected = ColorJitter.draw(50, 0.5, rngs["color-jitter"])(expected)
    assert torch.equal(first, Normaliser(digits.mean, digits.std)(expected))
    assert torch.equal(first, again) and not torch.equal(first, other)


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
    return short_spec(**{"batch_size": BATCH, "mixup_alpha": 0.4, **fields})


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


CUTMIX = {"mixup_alpha": 0, "cutmix_alpha": 0.8}


def cut_by_the_formula(spec, epoch=2):
    """Return inputs, share of the own label and partners of each sample, one box after the other."""
    rng = numpy_rng(spec.seed, "trial/cutmix", epoch)
    shares, centres = rng.beta(spec.cutmix_alpha, spec.cutmix_alpha, 3), rng.random((3, 2))
    partners = [BATCH * batch + rng.permutation(size) for batch, size in enumerate((8, 8, 4))]
    result, own = INPUTS.clone(), []
    for batch, (share, (down, across)) in enumerate(zip(shares, centres, strict=True)):
        half = int(0.5 * math.sqrt(1 - share) * 4)  # of images of 4 pixels
        box = [(max(0, int(centre * 4) - half), min(4, int(centre * 4) + half)) for centre in (down, across)]
        own.append(1 - (box[0][1] - box[0][0]) * (box[1][1] - box[1][0]) / 16)
        for sample, partner in enumerate(partners[batch], BATCH * batch):
            for row, column in itertools.product(range(*box[0]), range(*box[1])):
                result[sample, :, row, column] = INPUTS[partner, :, row, column]
    return result, own, np.concatenate(partners)


def test_a_box_of_each_sample_is_its_partners_and_the_loss_counts_both_by_their_pixels():
    spec = spec_of(**CUTMIX)
    loss, blend = build_loss(spec, SIZES, 2), epoch_cutmix(spec, 2, COUNT)
    expected, own, partners = cut_by_the_formula(spec)
    before = INPUTS.clone()

    assert any(0 < share < 1 for share in own)
    for batch, share in enumerate(own):
        part = slice(BATCH * batch, BATCH * (batch + 1))
        inputs, blended_loss = blend(INPUTS[part], loss, part.start)
        assert torch.equal(inputs, expected[part]) and inputs.is_contiguous(memory_format=torch.channels_last)
        losses = [loss(LOGITS[part], LABELS[each]) for each in (part, partners[part])]
        value = blended_loss(LOGITS[part], LABELS[part]).item()
        assert value == pytest.approx((share * losses[0] + (1 - share) * losses[1]).item(), rel=1e-6)
    assert torch.equal(INPUTS, before)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("centre", [(0, 0), (11, 16), (5, 9)])
def test_boxes_are_those_of_torchvisions_cutmix(monkeypatch, share, centre):
    cutmix = v2.CutMix(num_classes=3)
    monkeypatch.setattr(cutmix, "_dist", SimpleNamespace(sample=lambda size: torch.tensor([share])))
    answers = iter([centre[1], centre[0]])
    monkeypatch.setattr(torch, "randint", lambda *args, **kwargs: torch.tensor([next(answers)]))
    params = cutmix.make_params([torch.zeros(2, 1, 12, 17)])

    side = math.sqrt(1 - share)
    down, across = (cutmix_interval((at + 0.5) / size, side, size) for at, size in zip(centre, (12, 17), strict=True))

    assert params["box"] == (across.start, down.start, across.stop, down.stop)


def test_with_both_each_batch_gets_one_of_the_two_and_without_any_neither():
    spec = short_spec(batch_size=2, mixup_alpha=0.4, cutmix_alpha=0.4)
    loss, inputs = build_loss(spec, SIZES, 2), torch.rand(800, 1, 4, 4)
    blends = [epoch(spec, 3, 800) for epoch in (epoch_blend, epoch_mixup, epoch_cutmix)]
    counts = [0, 0]
    for start in range(0, 800, 2):
        found, *expected = (blend(inputs[start : start + 2], loss, start)[0] for blend in blends)
        same = [torch.equal(found, each) for each in expected]
        assert any(same)
        counts = [count + is_same for count, is_same in zip(counts, same, strict=True)]

    assert min(counts) > 150
    neither, same = epoch_blend(short_spec(batch_size=2), 3, 800)(inputs[:2], loss, 0)
    assert neither is not None and torch.equal(neither, inputs[:2]) and same is loss


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
