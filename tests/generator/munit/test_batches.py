import numpy as np
import pytest
import torch

from gitdist.data.randaugment import RandAugment, draw_operations
from gitdist.device import Compute
from gitdist.generator.munit.batches import BalancedBatches, draw_styles, to_signed, to_uint8
from gitdist.seeds import numpy_rng

CPU = Compute.resolve("float32", "cpu")
LABELS = np.repeat([0, 1, 2], [90, 9, 1])
IMAGES = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 1, 4, 4)).copy()
IMAGES[..., 0] = 255  # left edge bright, to see flips


def rows_of(batch: torch.Tensor) -> np.ndarray:
    return to_uint8(batch)[:, 0, 0, 1].numpy()


def test_classes_are_equally_likely_and_images_within_a_class_too(tiny):
    spec = tiny.model_copy(update={"batch_size": 6000, "flip": False})
    rows = rows_of(BalancedBatches(IMAGES, LABELS, spec, CPU).images(0, 0))
    classes = np.bincount(LABELS[rows], minlength=3)
    assert classes == pytest.approx([2000, 2000, 2000], abs=200)
    small = np.bincount(rows[(rows >= 90) & (rows < 99)] - 90, minlength=9)
    assert small == pytest.approx(np.full(9, 2000 / 9), abs=75)
    assert len(np.unique(rows)) == 100


def test_a_batch_depends_on_step_and_domain_only(tiny):
    first, second = (BalancedBatches(IMAGES, LABELS, tiny, CPU) for _ in range(2))
    second.images(3, 0)
    assert torch.equal(first.images(7, 0), second.images(7, 0))
    assert torch.equal(first.styles(7, 0), second.styles(7, 0))
    assert not torch.equal(first.styles(7, 0), first.styles(8, 0))
    assert not torch.equal(first.styles(7, 0), first.styles(7, 1))


@pytest.mark.parametrize(("flip", "share"), [(True, 0.5), (False, 0.0)])
def test_half_of_the_images_are_flipped_if_wanted(tiny, flip, share):
    spec = tiny.model_copy(update={"batch_size": 2000, "flip": flip})
    batch = to_uint8(BalancedBatches(IMAGES, LABELS, spec, CPU).images(0, 0))
    assert (batch[:, 0, 0, 3] == 255).float().mean().item() == pytest.approx(share, abs=0.05)


def test_every_level_survives_the_way_to_the_network_and_back():
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(to_uint8(to_signed(levels, CPU)), levels)
    rounded = to_uint8(to_signed(levels, Compute.resolve("bf16", "cpu")).float())
    assert (rounded.int() - levels.int()).abs().max() <= 1


def test_levels_beyond_the_range_are_clamped():
    assert to_uint8(torch.tensor([-1.5, 1.5]).view(1, 1, 1, 2)).flatten().tolist() == [0, 255]


def test_styles_are_standard_normal():
    styles = draw_styles(4000, 8, np.random.default_rng(0), torch.device("cpu"))
    assert styles.dtype == torch.float32
    assert styles.mean().item() == pytest.approx(0, abs=0.02)
    assert styles.std().item() == pytest.approx(1, abs=0.02)


def images_of(spec, step=3, domain=1, **changes):
    batches = BalancedBatches(IMAGES, LABELS, spec.model_copy(update={"batch_size": 50, **changes}), CPU)
    return to_uint8(batches.images(step, domain))


def test_training_images_are_randaugmented_by_their_steps_own_operations(tiny):
    codes = draw_operations(50, 2, numpy_rng(tiny.seed, "generator/randaugment", 3, 1))
    expected = RandAugment(12, (1, 4, 4))(images_of(tiny), codes)

    assert torch.equal(images_of(tiny, randaugment_ops=2, randaugment_magnitude=12), expected)
    assert not torch.equal(expected, images_of(tiny))


def test_each_training_image_is_blended_with_another_of_a_class_balanced_batch(tiny):
    blended = images_of(tiny, mixup_alpha=0.4, flip=False)[:, 0, 0, 1].double()
    first = images_of(tiny, flip=False)[:, 0, 0, 1].double()
    shares = torch.from_numpy(numpy_rng(tiny.seed, "generator/mixup", 3, 1).beta(0.4, 0.4, 50))

    partners = (blended - shares * first) / (1 - shares)

    known = 0.5 / (1 - shares) < 5  # what rounding leaves of the partner's level
    assert known.sum() > 20
    assert ((partners > -5) & (partners < 104))[known].all()
    classes = LABELS[partners[known].round().clamp(0, 99).int().numpy()]
    assert len(set(classes)) == 3
    assert not torch.equal(partners.round(), first)


@pytest.mark.parametrize(
    "change", [{"randaugment_ops": 1}, {"mixup_alpha": 1.0}, {"mixup_alpha": 1.0, "batch_size": 1}]
)
def test_changed_images_too_depend_on_step_and_domain_only(tiny, change):
    first = images_of(tiny, **change)

    assert torch.equal(images_of(tiny, **change), first)
    assert not torch.equal(images_of(tiny, step=4, **change), first)
    assert not torch.equal(images_of(tiny, domain=0, **change), first)
