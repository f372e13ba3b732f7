"""Generation at a lower resolution than the data set's."""

import numpy as np
import pytest
import torch

from gitdist.device import Compute
from gitdist.errors import SpecError
from gitdist.generator.grid import sample_grid
from gitdist.generator.kinds import draw_settings, load_generator, munit_artifact_spec, obtain_artifact, open_generator
from gitdist.generator.munit.batches import BalancedBatches
from gitdist.generator.munit.generator import MunitGenerator
from gitdist.generator.pretrained import Architecture, save_pretrained
from gitdist.generator.resizing import ResizedGenerator, generated_shape, resize
from gitdist.spec import PluginSpec, PretrainedSpec
from gitdist.spec.file import parse_study
from gitdist.store import Store, content_key
from gitdist.stream.blocks import BlockKey
from gitdist.stream.server import ServerConfig
from tests.generator.test_contract import PLUGINS, initial_network

CPU = Compute.resolve("float32", "cpu")


@pytest.fixture
def small(tiny):
    return tiny.model_copy(update={"image_size": 16})


def test_the_longer_side_is_named_and_the_other_in_proportion():
    assert generated_shape(None, (3, 32, 48)) == (3, 32, 48)
    assert generated_shape(24, (3, 32, 48)) == (3, 16, 24)
    for size in (48, 64):
        with pytest.raises(SpecError, match=f"below the images' side of 48 pixels, but it is {size}"):
            generated_shape(size, (3, 32, 48))


def test_reduction_averages_what_it_covers_and_levels_are_whole():
    stripes = torch.tensor([0, 255], dtype=torch.uint8).repeat(16).expand(2, 1, 32, 32)
    reduced = resize(stripes, (1, 8, 8))
    assert reduced.dtype == torch.uint8 and reduced.shape == (2, 1, 8, 8)
    assert (reduced.int() - 127).abs().max() <= 10  # at the edges; without antialiasing pixels would be 0 or 255
    assert torch.equal(resize(torch.full_like(stripes, 201), (1, 8, 8)), torch.full((2, 1, 8, 8), 201).byte())


def test_codes_are_of_the_smaller_images_and_draws_of_the_data_sets_size(small, tiny, digits):
    inner = MunitGenerator(initial_network(tiny), tiny.style_dim, CPU)
    generator = ResizedGenerator(inner, (1, 16, 16), digits.image_shape)
    images = torch.tensor(digits.train.images[:3])
    codes = generator.encode(images, images)
    assert codes.shape[2:] == (4, 4)
    drawn = generator.draw(codes, np.random.default_rng(0))
    assert drawn.shape == images.shape and drawn.dtype == torch.uint8
    assert torch.equal(drawn, resize(inner.draw(codes, np.random.default_rng(0)), digits.image_shape))


def test_training_blocks_and_pictures_take_the_same_path(small, digits, tmp_path):
    batches = BalancedBatches(digits.train.images, digits.train.labels, small, CPU)
    assert batches.images(0, 0).shape == (4, 1, 16, 16)
    small = small.model_copy(update={"steps": 1})
    store = Store(tmp_path)
    artifact = obtain_artifact(small, digits, store, lambda step: None, CPU)
    config = ServerConfig(
        dataset=digits.directory,
        generator=small,
        artifact=artifact,
        stream=parse_study({"name": "a", "stream": {"block_size": 4}}, "test").stream,
        device="cpu",
    )
    block = config.build_maker().make(BlockKey(0, 0))
    assert block.images.shape == (4, *digits.image_shape)
    with open_generator(small, digits, artifact, CPU) as generator:
        assert isinstance(generator, ResizedGenerator)
        assert sample_grid(generator, digits, 1, 2, 0).ndim == 3


def test_an_imported_network_and_a_plugin_draw_at_the_lower_size(tiny, digits, tmp_path):
    shapes = tiny.model_dump(include={"dim", "mlp_dim", "style_dim", "num_downsample", "num_res"})
    file = tmp_path / "x.safetensors"
    save_pretrained(file, Architecture(image_channels=1, **shapes), initial_network(tiny).state_dict())
    images = torch.tensor(digits.train.images[:2])
    for spec in (
        PretrainedSpec(path=str(file), image_size=20),
        PluginSpec(target=f"{PLUGINS}:Shade", image_size=20),
    ):
        artifact = obtain_artifact(spec, digits, Store(tmp_path / "store"), lambda step: None, CPU)
        generator = load_generator(spec, digits, artifact, CPU)
        assert generator.draw(generator.encode(images, images), np.random.default_rng(0)).shape == images.shape
        assert draw_settings(spec)["image_size"] == 20
        assert "image_size" not in draw_settings(spec.model_copy(update={"image_size": None}))


def test_the_size_enters_the_key_only_if_it_is_set(tiny, small):
    assert content_key("generator", munit_artifact_spec(tiny, "f", CPU)) == "c148da773869aa46b9b6"
    assert munit_artifact_spec(small, "f", CPU)["image_size"] == 16


def test_what_cannot_be_generated_smaller_is_refused_in_one_line(tiny, digits, tmp_path):
    trained = PluginSpec(target=f"{PLUGINS}:Learnt", image_size=16)
    for spec, words in (
        (tiny.model_copy(update={"image_size": 28}), "must be below"),
        (tiny.model_copy(update={"image_size": 18}), "num_downsample"),
        (trained, "plugins that do not train"),
    ):
        with pytest.raises(SpecError, match=words):
            obtain_artifact(spec, digits, Store(tmp_path), lambda step: None, CPU)
    for kind in ("oracle", "identity", "randaugment"):
        fields = {"name": "a", "generator": {"kind": kind, "image_size": 16}, "data": {"nuisance": "rotation"}}
        with pytest.raises(SpecError, match="unknown field 'image_size'"):
            parse_study(fields, "test")
