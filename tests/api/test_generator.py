import pickle

import numpy as np
import pytest
import torch

from gitdist import Generator, train_generator
from gitdist.device import Compute
from gitdist.errors import GitdistError
from gitdist.generator.kinds import find_artifact, load_generator
from gitdist.spec import MunitSpec
from gitdist.store import Store
from tests.api.conftest import TINY
from tests.generator.sample_plugins import Shade


class Stop(Exception):
    pass


def test_an_interrupted_training_resumes(digits, munit):
    steps = []

    def stop_at_30(step):
        steps.append(step.step)
        if step.step == 30:
            raise Stop

    settings = dict(steps=40, device="cpu", precision="float32", checkpoint_every=15, seed=1, **TINY)
    with pytest.raises(Stop):
        train_generator(digits, progress=stop_at_30, **settings)
    assert steps == [10, 20, 30]
    resumed = train_generator(digits, progress=lambda step: steps.append(step.step), **settings)
    assert steps == [10, 20, 30, 20, 30, 40]  # from the checkpoint of step 15 on

    again = train_generator(digits, progress=steps.append, **settings)  # out of the store
    images = digits.prepared.train.images[:5]
    assert len(steps) == 6
    assert torch.equal(resumed.draw(images), again.draw(images))


def test_a_study_finds_the_generator_in_the_store(digits, munit):
    spec = MunitSpec(steps=20, precision="float32", **TINY)
    store, compute = Store(digits.prepared.directory.parents[1]), Compute.resolve(device="cpu")

    artifact = find_artifact(spec, digits.prepared, store, compute)

    assert artifact is not None
    images = torch.tensor(digits.prepared.train.images[:3])
    own = load_generator(spec, digits.prepared, artifact, compute)
    codes = own.encode(images, images)
    assert own.draw(codes, np.random.default_rng(0)).shape == munit.draw(images).shape


def test_draws_follow_from_images_and_seed(digits, munit):
    images = torch.tensor(digits.prepared.train.images[:70])  # more than are encoded at once

    drawn = munit.draw(images, 3)

    assert drawn.dtype == torch.uint8 and drawn.shape == images.shape
    assert torch.equal(drawn, munit.draw(images.numpy(), 3)) and not torch.equal(drawn, munit.draw(images, 4))
    several = munit.draw(images, 3, num_draws=2)
    assert several.shape == (70, 2, *images.shape[1:])
    assert torch.equal(several[:, 0], drawn) and not torch.equal(several[:, 1], drawn)
    assert munit.draw(images[:0]).shape == (0, *images.shape[1:])


def test_float_images_are_the_nearest_pixel_values(digits, munit):
    images = torch.tensor(digits.prepared.train.images[:4])

    for dtype in (torch.float32, torch.float64):
        assert torch.equal(munit.draw(images.to(dtype) / 255, 3), munit.draw(images, 3))


def test_a_saved_munit_draws_the_same(digits, munit, tmp_path):
    images = digits.prepared.train.images[:5]
    munit.save(tmp_path / "munit.safetensors")

    loaded = Generator.load(tmp_path / "munit.safetensors", munit.image_shape, device="cpu")
    imported = train_generator(digits, kind="pretrained", path=str(tmp_path / "munit.safetensors"), device="cpu")

    assert torch.equal(loaded.draw(images), munit.draw(images))
    assert torch.equal(imported.draw(images), munit.draw(images))


def test_generators_without_training(digits):
    prepared = digits.prepared
    clean = torch.tensor(prepared.train.clean[:6])
    oracle = train_generator(digits, kind="oracle").draw(clean)

    assert torch.equal(train_generator(digits, kind="identity").draw(clean), clean)
    assert ((oracle != clean) <= (clean == 0)).all() and (oracle != clean).any()  # backgrounds are drawn, and only they
    assert train_generator(digits, kind="randaugment", ops=1).draw(clean).shape == clean.shape
    target = "tests.generator.sample_plugins:Shade"
    assert (train_generator(digits, kind="plugin", target=target).draw(clean) >= clean).all()


def test_a_generator_of_the_users_own_is_wrapped():
    class Context:
        pass

    images = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)

    drawn = Generator(Shade(Context(), 9), (1, 4, 4)).draw(images, num_draws=20)

    assert 0 < drawn.max() <= 9 and drawn.float().std(1).min() > 0


def test_a_pickled_generator_draws_the_same(digits, munit):
    images = digits.prepared.train.images[:5]

    assert torch.equal(pickle.loads(pickle.dumps(munit)).draw(images), munit.draw(images))


def test_the_preview_has_a_row_per_image(digits, munit):
    images = digits.prepared.train.images[:3]

    picture = munit.preview(images, num_draws=5, names=["0", "1", "2"])
    one = munit.preview(images[:1], num_draws=5)

    assert picture.mode == "RGB" and picture.height == 3 * one.height and picture.width == one.width


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "munitt"}, "munitt"),
        ({"stepz": 5}, "did you mean 'steps'"),
        ({"steps": 0}, "steps: must be"),
        ({"progress": True}, "progress must be"),
        ({"dim": True}, "dim"),
        ({"kind": "oracle", "steps": 5}, "steps"),
        ({"num_downsample": 5}, "num_downsample"),
        ({"kind": "pretrained", "path": "/no/such/file"}, "/no/such/file"),
        ({"lr": 1e30, "steps": 3, **TINY}, "training the generator failed"),
    ],
)
def test_wrong_settings_are_one_line(digits, settings, words):
    with pytest.raises(GitdistError, match=words) as caught:
        train_generator(digits, device="cpu", **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.zeros(1, 28, 28), r"\[1, 28, 28\]"),
        (np.full((2, 1, 28, 28), "x"), "<U1"),
        ([[1], [1, 2]], "array"),
        (torch.zeros(2, 3, 28, 28), r"\[3, 28, 28\]"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.int64), "int64"),
        (torch.full((2, 1, 28, 28), -1.0), "normalisation"),
        (torch.full((2, 1, 28, 28), float("nan")), "nan"),
        (torch.full((2, 1, 28, 28), 255.0), "255"),
    ],
)
def test_images_that_are_no_pixels_are_refused(munit, images, words):
    with pytest.raises(GitdistError, match=words):
        munit.draw(images)


def test_only_a_trained_munit_can_be_saved(digits, munit, tmp_path):
    with pytest.raises(GitdistError, match="only a MUNIT"):
        train_generator(digits, kind="identity").save(tmp_path / "x")
    with pytest.raises(GitdistError, match="cannot be written"):
        munit.save(tmp_path / "missing" / "x")


def test_a_prepared_data_set_is_not_a_data_set_of_python(digits):
    with pytest.raises(GitdistError, match="must be a gitdist.Dataset"):
        train_generator(digits.prepared, kind="identity")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_torch_does_not_have_is_refused(digits, device):
    with pytest.raises(GitdistError, match=f"device must be one that torch has here.*'{device}'"):
        train_generator(digits, kind="identity", device=device)


def test_a_shape_has_three_numbers(munit, tmp_path):
    munit.save(tmp_path / "munit")
    with pytest.raises(GitdistError, match="image_shape must be"):
        Generator.load(tmp_path / "munit", 28)
    assert Generator.load(tmp_path / "munit", [1, 28, 28]).image_shape == (1, 28, 28)
