import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from gitdist import GIT, Generator, sampler
from gitdist.errors import GitdistError
from gitdist.generator.oracle import RandAugmentGenerator
from gitdist.spec import TrialSpec
from gitdist.trial.mixing import replaced_samples
from gitdist.trial.plan import epoch_indices

SIZES = np.array([100, 50, 20, 10])
IMAGES = torch.arange(200, dtype=torch.uint8).view(40, 1, 1, 5).expand(40, 3, 4, 5).contiguous()
LABELS = torch.arange(40) % 4


def invert(images: torch.Tensor) -> torch.Tensor:
    """Changes every image of less than half the brightness, in both types; the changed ones are at least half."""
    return 255 - images if images.dtype == torch.uint8 else 1 - images


def noisy(images: torch.Tensor) -> torch.Tensor:
    return torch.randint(0, 256, images.shape, dtype=torch.uint8)


def changed(before: torch.Tensor, after: torch.Tensor) -> list[bool]:
    return (before != after).flatten(1).any(1).tolist()


@pytest.mark.parametrize("fields", [{"threshold": 50}, {"threshold": None}, {"threshold": 20, "fraction": 0.8}])
def test_the_samples_of_a_trial_with_the_same_batches_are_replaced(fields):
    labels = np.repeat(np.arange(4), SIZES)
    spec = TrialSpec(**fields, batch_size=32, seed=3)
    order = epoch_indices(spec, labels, SIZES, epoch=2)
    assert order.tolist() == [*_epoch(sampler(labels, "class-balanced", seed=3), 1)]
    images = torch.zeros(len(order), 1, 2, 2, dtype=torch.uint8)
    git = GIT(invert, SIZES, fields["threshold"], fields.get("fraction", 0.5))

    replaced = []
    for start in range(0, len(order), 32):
        batch = slice(start, start + 32)
        mixed, _ = git(images[batch], torch.from_numpy(labels[order[batch]]))
        replaced += changed(images[batch], mixed)

    assert replaced == replaced_samples(spec, labels[order], SIZES, epoch=2).tolist()


def _epoch(own_sampler, epoch):
    own_sampler.set_epoch(epoch)
    return own_sampler


def test_only_the_first_samples_of_classes_below_the_threshold_are_replaced():
    mixed, labels = GIT(invert, SIZES, threshold=50, fraction=0.25)(IMAGES, LABELS)

    expected = [index < 10 and bool(SIZES[LABELS[index]] < 50) for index in range(40)]
    assert changed(IMAGES, mixed) == expected and sum(expected) == 4
    assert labels is LABELS


def test_a_soft_threshold_replaces_with_its_probability():
    labels = torch.arange(4).repeat(5000)
    images = torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8)

    mixed, _ = GIT(invert, SIZES, 60, 1.0, threshold_kind="soft")(images, labels)

    shares = [float((mixed[labels == label] != 0).float().mean()) for label in range(4)]
    # (60 - n) / (60 - 10), within four standard deviations of 5,000 draws
    assert shares == pytest.approx([0.0, 0.2, 0.8, 1.0], abs=4 * 0.5 / 5000**0.5)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.float16])
def test_type_shape_and_memory_layout_are_kept(dtype):
    images = IMAGES if dtype == torch.uint8 else IMAGES.to(dtype) / 255
    images = images.to(memory_format=torch.channels_last)
    before = images.clone()
    git = GIT(Generator(RandAugmentGenerator(2, 9, (3, 4, 5)), (3, 4, 5)), SIZES, 50, seed=1)

    mixed, _ = git(images, LABELS)

    assert (mixed.dtype, mixed.shape) == (dtype, images.shape)
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before) and any(changed(images, mixed))
    assert not any(changed(images, mixed)[20:])


def test_float_and_uint8_images_get_the_same_draws():
    generator = Generator(RandAugmentGenerator(2, 9, (3, 4, 5)), (3, 4, 5))

    pixels, _ = GIT(generator, SIZES, 50)(IMAGES, LABELS)
    floats, _ = GIT(generator, SIZES, 50)(IMAGES.float() / 255, LABELS)

    assert torch.equal(floats, pixels.float() / 255)


def test_calls_differ_and_follow_from_seed_and_step(monkeypatch):
    git, same, other = GIT(noisy, SIZES), GIT(noisy, SIZES), GIT(noisy, SIZES, seed=1)
    torch.manual_seed(0)
    state, seeded = torch.get_rng_state(), []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)  # without a GPU it does nothing

    first, second = (git(IMAGES, LABELS)[0] for _ in range(2))

    assert torch.equal(torch.get_rng_state(), state) and not seeded
    assert not torch.equal(first, second) and not torch.equal(first, other(IMAGES, LABELS)[0])
    same.step = 1
    assert torch.equal(same(IMAGES, LABELS)[0], second)


def batches(git: GIT, epochs: int = 2, **settings) -> list[list[torch.Tensor]]:
    """Return the images of each epoch's batches, ten samples each."""
    torch.manual_seed(5)
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=10, collate_fn=git.collate, **settings)
    return [[images for images, _ in loader] for _ in range(epochs)]


@pytest.mark.parametrize("settings", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_a_loader_replaces_anew_in_every_batch_and_epoch_reproducibly(settings):
    epochs = batches(GIT(noisy, SIZES, 50), **settings)
    again = batches(GIT(noisy, SIZES, 50), **settings)

    seen = set()
    for own, other in zip(epochs, again, strict=True):
        for number, (images, same) in enumerate(zip(own, other, strict=True)):
            assert torch.equal(images, same)
            originals, labels = IMAGES[number * 10 :][:10], LABELS[number * 10 :][:10]
            expected = [index < 5 and bool(SIZES[labels[index]] < 50) for index in range(10)]
            assert changed(originals, images) == expected
            seen |= {image.numpy().tobytes() for image in images[torch.tensor(expected)]}
    assert len(seen) == 2 * 10  # ten replaced samples in each of two epochs, no two alike


def test_it_can_be_pickled(munit, digits):
    git = GIT(munit, digits.prepared.class_sizes, 50)
    train = digits.prepared.train
    images, labels = torch.tensor(train.images[-20:]), torch.tensor(train.labels[-20:])

    copy = pickle.loads(pickle.dumps(git))

    assert torch.equal(copy(images, labels)[0], git(images, labels)[0])


def test_workers_draw_with_munit(munit, digits):
    train = digits.prepared.train
    data = TensorDataset(torch.tensor(train.images[-40:]), torch.tensor(train.labels[-40:]))
    git = GIT(munit, digits.prepared.class_sizes, 50)

    mixed = torch.cat([images for images, _ in DataLoader(data, 20, num_workers=2, collate_fn=git.collate)])

    assert changed(data.tensors[0], mixed) == ([True] * 10 + [False] * 10) * 2


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"threshold": 0}, "threshold: must be greater than 0"),
        ({"fraction": 1.5}, "fraction: must be less than"),
        ({"threshold_kind": "firm"}, "threshold_kind: must be"),
        ({"threshold": 10, "threshold_kind": "soft"}, "threshold = 10 and that class has 10"),
        ({"seed": 1.5}, "seed: must be a whole number"),
        ({"class_sizes": [0, 0]}, "all 2 are 0"),
        ({"class_sizes": [5.0, 2.0]}, "whole numbers"),
        ({"class_sizes": []}, "whole numbers"),
        ({"class_sizes": [5, -1]}, "-1"),
    ],
)
def test_wrong_settings_are_one_line(settings, words):
    with pytest.raises(GitdistError, match=words):
        GIT(invert, **{"class_sizes": SIZES, **settings})


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (IMAGES, LABELS + 1, "below 4"),
        (IMAGES, LABELS.float(), "whole numbers"),
        (IMAGES, LABELS[:5], "40 images have 5"),
        (IMAGES[0], LABELS, r"\[N, C, H, W\]"),
    ],
)
def test_wrong_batches_are_one_line(images, labels, words):
    with pytest.raises(GitdistError, match=words):
        GIT(invert, SIZES)(images, labels)


@pytest.mark.parametrize("wrong", [lambda images: images[:1], lambda images: images.float(), lambda images: None])
def test_a_function_must_return_images_like_those_that_it_gets(wrong):
    with pytest.raises(GitdistError, match="a transformation must return"):
        GIT(wrong, SIZES)(IMAGES, LABELS)


def test_a_generator_of_plugins_must_be_wrapped():
    with pytest.raises(GitdistError, match="a gitdist.Generator or a function, but not by a RandAugmentGenerator"):
        GIT(RandAugmentGenerator(2, 9, (3, 4, 5)), SIZES)


@pytest.mark.parametrize("sample", [(IMAGES[0], 0, "name"), {"image": IMAGES[0]}])
def test_samples_that_are_no_pairs_are_refused(sample):
    with pytest.raises(GitdistError, match="each sample must be"):
        GIT(invert, SIZES).collate([sample])


def test_numpy_numbers_are_numbers():
    GIT(invert, torch.from_numpy(SIZES), np.int64(50), np.float32(0.5), np.int32(3))
