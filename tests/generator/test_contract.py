"""What ``Generator`` promises, held against every kind."""

import numpy as np
import pytest
import torch

from gitdist.device import Compute
from gitdist.generator.base import Generator
from gitdist.generator.kinds import load_generator, obtain_artifact
from gitdist.generator.munit.generator import MunitGenerator
from gitdist.generator.munit.networks import AutoEncoder, initialise
from gitdist.generator.oracle import OracleGenerator
from gitdist.generator.pretrained import Architecture, save_pretrained
from gitdist.spec import IdentitySpec, PluginSpec, PretrainedSpec, RandAugmentSpec
from gitdist.store import Store

PLUGINS = "tests.generator.sample_plugins"
CPU = Compute.resolve("float32", "cpu")
SPECS = {
    "identity": IdentitySpec(),
    "randaugment": RandAugmentSpec(),
    "plugin": PluginSpec(target=f"{PLUGINS}:Shade"),
    "trained plugin": PluginSpec(target=f"{PLUGINS}:Learnt", options={"steps": 3}),
}
NUISANCES = ("rotation", "background", "dilation-erosion")
NETWORKS = ("munit float32", "munit bf16", "pretrained")


def initial_network(tiny) -> AutoEncoder:
    network = AutoEncoder(tiny, 1)
    initialise(network, None, torch.Generator().manual_seed(0))
    return network


@pytest.fixture(params=[*SPECS, *NUISANCES, *NETWORKS])
def generator(request, tiny, digits, tmp_path) -> Generator:
    name = request.param
    if name in NUISANCES:
        return OracleGenerator(name)
    if name.startswith("munit"):
        compute = Compute.resolve(name.removeprefix("munit "), "cpu")
        return MunitGenerator(initial_network(tiny), tiny.style_dim, compute)
    if name == "pretrained":
        shapes = tiny.model_dump(include={"dim", "mlp_dim", "style_dim", "num_downsample", "num_res"})
        save_pretrained(
            tmp_path / "x.safetensors", Architecture(image_channels=1, **shapes), initial_network(tiny).state_dict()
        )
    spec = SPECS.get(name) or PretrainedSpec(path=str(tmp_path / "x.safetensors"))
    artifact = obtain_artifact(spec, digits, Store(tmp_path / "store"), lambda step: None, CPU)
    return load_generator(spec, digits, artifact, CPU)


@pytest.fixture
def images(digits) -> torch.Tensor:
    return torch.tensor(digits.train.images[:6])


@pytest.fixture
def clean(digits) -> torch.Tensor:
    return torch.tensor(digits.train.clean[:6])


class TestContract:
    def test_codes_are_rows_on_the_device_and_draws_are_images_in_memory(self, generator, images, clean):
        codes = generator.encode(images, clean)
        assert len(codes) == 6 and codes.device == generator.device
        drawn = generator.draw(codes, np.random.default_rng(0))
        assert drawn.shape == images.shape and drawn.dtype == torch.uint8
        assert drawn.device.type == "cpu" and drawn.is_contiguous()

    def test_both_methods_are_pure(self, generator, images, clean):
        given = images.clone(), clean.clone()
        codes = generator.encode(images, clean)
        torch.manual_seed(1)
        first = generator.draw(codes, np.random.default_rng(5))
        torch.manual_seed(2)
        again = generator.encode(images, clean)
        assert torch.equal(codes, again)
        assert torch.equal(first, generator.draw(again, np.random.default_rng(5)))
        assert torch.equal(images, given[0]) and torch.equal(clean, given[1])

    def test_the_global_random_state_stays(self, generator, images, clean):
        torch.manual_seed(7)
        before = torch.get_rng_state()
        generator.draw(generator.encode(images, clean), np.random.default_rng(0))
        assert torch.equal(before, torch.get_rng_state())

    def test_what_it_returns_is_the_callers(self, generator, images, clean):
        codes = generator.encode(images, clean)
        kept = codes.clone()
        images.zero_(), clean.zero_()
        assert torch.equal(codes, kept)
        first = generator.draw(codes, np.random.default_rng(0))
        expected = first.clone()
        first.numpy()[:] = 0
        assert torch.equal(codes, kept)
        assert torch.equal(generator.draw(codes, np.random.default_rng(0)), expected)

    def test_an_image_is_encoded_alike_in_any_order(self, generator, images, clean):
        codes = generator.encode(images, clean)
        assert torch.equal(generator.encode(images.flip(0), clean.flip(0)), codes.flip(0))

    def test_rows_of_a_cache_draw_the_same(self, generator, images, clean):
        codes = generator.encode(images, clean)
        gathered = torch.cat([codes, codes])[torch.arange(6) + 6]
        draws = [generator.draw(rows, np.random.default_rng(0)) for rows in (codes, gathered)]
        assert torch.equal(*draws)

    def test_other_numbers_give_other_draws_unless_it_repeats_images(self, generator, images, clean):
        codes = generator.encode(images, clean)
        first, second = (generator.draw(codes, np.random.default_rng(seed)) for seed in (5, 6))
        assert torch.equal(first, second) == (type(generator).__name__ == "IdentityGenerator")


class TestExactCodes:
    """Of generators whose codes are images: an image's code is the same in a batch of any size."""

    @pytest.fixture(params=["identity", "randaugment", "plugin", *NUISANCES])
    def generator(self, request, digits) -> Generator:
        name = request.param
        return OracleGenerator(name) if name in NUISANCES else load_generator(SPECS[name], digits, None, CPU)

    def test_codes_do_not_depend_on_the_batch(self, generator, images, clean):
        parts = [generator.encode(images[part], clean[part]) for part in (slice(0, 1), slice(1, 6))]
        assert torch.equal(torch.cat(parts), generator.encode(images, clean))


def test_randaugment_applies_its_operations_to_the_image_not_to_the_clean_one(digits, images, clean):
    generator = load_generator(RandAugmentSpec(ops=1, magnitude=0), digits, None, CPU)
    assert torch.equal(generator.encode(images, clean), images)
    drawn = generator.draw(generator.encode(images, clean).repeat(50, 1, 1, 1), np.random.default_rng(0))
    kept = (drawn.view(50, *images.shape) == images).flatten(2).all(2).float().mean()
    assert 0.5 < kept < 0.9  # of 14 operations only autocontrast, equalize, posterize and solarize act at magnitude 0
