from typing import Literal, get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gitdist.device import Compute
from gitdist.errors import SpecError, StoreError
from gitdist.generator.base import Generator
from gitdist.generator.kinds import (
    KINDS,
    GeneratorKind,
    generator_name,
    load_generator,
    munit_artifact_spec,
    needs_training,
    obtain_artifact,
)
from gitdist.generator.munit.generator import MunitGenerator
from gitdist.generator.munit.networks import WEIGHTS_FILE
from gitdist.generator.oracle import IdentityGenerator, OracleGenerator, RandAugmentGenerator
from gitdist.spec import GeneratorSpec, IdentitySpec, OracleSpec, RandAugmentSpec
from gitdist.spec.generator import KindSpec
from gitdist.store import Store, content_key

CPU = Compute.resolve("float32", "cpu")


def test_a_generator_is_trained_once_and_loaded_from_the_store(tiny, digits, tmp_path):
    reports = []
    first = obtain_artifact(tiny, digits, Store(tmp_path), reports.append, CPU)
    assert reports and first is not None
    reports.clear()
    assert obtain_artifact(tiny, digits, Store(tmp_path), reports.append, CPU) == first
    assert not reports
    images = torch.tensor(digits.train.images[:3])
    draws = []
    for _ in range(2):
        generator = load_generator(tiny, digits, first, CPU)
        assert isinstance(generator, MunitGenerator)
        draws.append(generator.draw(generator.encode(images, images), np.random.default_rng(0)))
    assert torch.equal(*draws)


def test_what_determines_a_generator_is_in_its_name_and_the_rest_is_not(tiny):
    def named(changes: dict, fingerprint: str = "f", precision: str = "float32") -> dict:
        spec = tiny.model_copy(update=changes)
        return munit_artifact_spec(spec, fingerprint, Compute.resolve(precision, "cpu"))

    assert named({"checkpoint_every": 3}) == named({})
    assert named({"precision": "float32"}) == named({"precision": "auto"})
    for other in (named({"steps": 36}), named({}, fingerprint="g"), named({}, precision="bf16"), named({"seed": 1})):
        assert other != named({})


def test_what_is_switched_off_leaves_no_trace_in_the_name(tiny):
    def key(**changes) -> str:
        return content_key("generator", munit_artifact_spec(tiny.model_copy(update=changes), "f", CPU))

    assert key() == "c148da773869aa46b9b6"  # of this very generator before the settings were there
    assert key(randaugment_magnitude=5) == key()
    names = [key(mixup_alpha=0.2), *(key(randaugment_ops=1, randaugment_magnitude=number) for number in (5, 9))]
    assert len({key(), *names}) == 4


def test_generators_without_training_have_no_artifact(digits, tmp_path):
    kinds = {OracleGenerator: OracleSpec(), IdentityGenerator: IdentitySpec(), RandAugmentGenerator: RandAugmentSpec()}
    for kind, spec in kinds.items():
        assert not needs_training(spec)
        assert obtain_artifact(spec, digits, Store(tmp_path), lambda row: None, CPU) is None
        assert isinstance(load_generator(spec, digits, None, CPU), kind)


def test_settings_that_cannot_work_are_refused_before_the_store_is_touched(tiny, digits, tmp_path):
    with pytest.raises(SpecError, match="discriminator_layers"):
        spec = tiny.model_copy(update={"discriminator_layers": 6})
        obtain_artifact(spec, digits, Store(tmp_path), lambda row: None, CPU)
    assert not list((tmp_path / "work").iterdir())


def test_missing_foreign_and_damaged_weights_are_store_errors(tiny, digits, tmp_path):
    def load(spec, directory):
        return load_generator(spec, digits, directory, CPU)

    with pytest.raises(StoreError, match="none was given"):
        load(tiny, None)
    with pytest.raises(StoreError, match=WEIGHTS_FILE):
        load(tiny, tmp_path)
    artifact = obtain_artifact(tiny, digits, Store(tmp_path), lambda row: None, CPU)
    with pytest.raises(StoreError, match="does not have the weights of the generator's settings"):
        load(tiny.model_copy(update={"dim": 8}), artifact)
    weights = load_file(artifact / WEIGHTS_FILE)
    weights["mlp.layers.0.bias"][0] = torch.inf
    save_file(weights, tmp_path / WEIGHTS_FILE)
    with pytest.raises(StoreError, match="mlp.layers.0.bias contains NaN or infinite values.*train it again"):
        load(tiny, tmp_path)
    (tmp_path / WEIGHTS_FILE).write_bytes((artifact / WEIGHTS_FILE).read_bytes()[:100])
    with pytest.raises(StoreError, match="train it again"):
        load(tiny, tmp_path)


def test_the_table_has_the_kinds_that_a_study_file_may_use():
    assert list(KINDS) == list(get_args(get_args(GeneratorSpec)[0]))


class FlipSpec(KindSpec):
    kind: Literal["flip"] = "flip"


class FlipGenerator(Generator):
    device = torch.device("cpu")

    def encode(self, images, clean):
        return images.clone()

    def draw(self, codes, rng):
        return codes.flip(3)


def test_a_new_kind_is_a_line_in_the_table(digits, tmp_path, monkeypatch):
    spec = FlipSpec()
    with pytest.raises(SpecError, match="generator.kind 'flip'"):
        load_generator(spec, digits, None, CPU)
    monkeypatch.setitem(KINDS, FlipSpec, GeneratorKind(load=lambda *_: FlipGenerator()))
    assert not needs_training(spec)
    assert obtain_artifact(spec, digits, Store(tmp_path), lambda step: None, CPU) is None
    assert generator_name(spec, None) == "flip"
    generator, images = load_generator(spec, digits, None, CPU), torch.tensor(digits.train.images[:2])
    drawn = generator.draw(generator.encode(images, images), np.random.default_rng(0))
    assert torch.equal(drawn, images.flip(3))
