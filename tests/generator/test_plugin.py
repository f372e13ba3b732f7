import sys

import numpy as np
import pytest
import torch

from gitdist.device import Compute
from gitdist.errors import GitdistError, SpecError, StreamError
from gitdist.generator.grid import sample_grid
from gitdist.generator.kinds import (
    draw_settings,
    find_artifact,
    load_generator,
    needs_training,
    obtain_artifact,
    open_generator,
)
from gitdist.spec import PluginSpec
from gitdist.store import Store

PLUGINS = "tests.generator.sample_plugins"
CPU = Compute.resolve("float32", "cpu")


def plugin(name: str, **options) -> PluginSpec:
    return PluginSpec(target=f"{PLUGINS}:{name}", options=options)


def load(spec: PluginSpec, digits):
    return load_generator(spec, digits, None, CPU)


def test_a_plugin_gets_the_context_and_its_options(digits):
    generator = load(plugin("Shade", strongest=0), digits)
    inner = generator._generator
    assert inner.strongest == 0
    assert (inner.context.image_shape, inner.context.class_names) == (digits.image_shape, digits.class_names)
    assert (inner.context.nuisance, inner.context.compute, inner.context.artifact) == ("background", CPU, None)
    images = torch.tensor(digits.train.images[:3])
    assert torch.equal(generator.draw(generator.encode(images, images), np.random.default_rng(0)), images)


def test_target_options_and_version_name_its_draws():
    assert draw_settings(plugin("Shade", strongest=3)) == {
        "target": f"{PLUGINS}:Shade",
        "options": {"strongest": 3},
        "version": 3,
    }
    assert draw_settings(plugin("Fails", where="")) != draw_settings(plugin("Shade"))


def test_a_plugin_that_trains_does_so_once_for_its_options_and_data(digits, tmp_path):
    spec, store, steps = plugin("Learnt", steps=4), Store(tmp_path), []
    assert needs_training(spec) and not needs_training(plugin("Shade"))
    assert find_artifact(spec, digits, store, CPU) is None
    artifact = obtain_artifact(spec, digits, store, steps.append, CPU)
    assert [(step.step, step.total, step.losses["error"]) for step in steps] == [
        (1, 4, 1),
        (2, 4, 1 / 2),
        (3, 4, 1 / 3),
        (4, 4, 1 / 4),
    ]
    assert obtain_artifact(spec, digits, store, steps.append, CPU) == artifact and len(steps) == 4
    assert find_artifact(plugin("Learnt", steps=5), digits, store, CPU) is None
    assert load_generator(spec, digits, artifact, CPU)._generator.strongest == len(digits.train.labels) % 50 + 4


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("no_such_package:x", ["No module named 'no_such_package'", "on every node"]),
        (f"{PLUGINS}:Missing", ["has no attribute 'Missing'"]),
        ("shade", ["no such entry point", "gitdist.generators"]),
        (f"{PLUGINS}:not_callable", ["must be a class or a function", "type int"]),
        (f"{PLUGINS}:not_a_generator", ["gitdist.generator.base.Generator", "type str"]),
        (f"{PLUGINS}:oddly_versioned", ["version", "[1]"]),
    ],
)
def test_a_target_that_is_no_plugin_is_one_line_with_its_name(digits, target, words):
    with pytest.raises(SpecError) as caught:
        load(PluginSpec(target=target), digits)
    message = str(caught.value)
    assert "\n" not in message and "generator.target" in message
    assert all(word in message for word in [target, *words]), message


def test_a_module_that_fails_is_reported_with_its_line(digits, tmp_path, monkeypatch):
    (tmp_path / "half_written.py").write_text("x = 1\ny = x / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError, match=r"ZeroDivisionError: division by zero \(half_written.py, line 2\)"):
        load(PluginSpec(target="half_written:x"), digits)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("init", ["ValueError: no such table", "sample_plugins.py, line"]),
        ("weights", ["UnpicklingError: the file holds argparse.Namespace, which is neither"]),
        ("device", ["torch.device", "none"]),
    ],
)
def test_a_plugin_that_cannot_be_built_is_one_line(digits, where, words):
    with pytest.raises(SpecError) as caught:
        load(plugin("Fails", where=where), digits)
    assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_an_unknown_option_is_reported(digits):
    with pytest.raises(SpecError, match="unexpected keyword argument 'strogest'.*generator.options"):
        load(plugin("Shade", strogest=1), digits)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("rows", ["4 images", r"encode returned uint8 [3, 1, 28, 28] on cpu"]),
        ("draw", ["RuntimeError: lost", "sample_plugins.py, line"]),
        ("dtype", ["uint8", "float32 [4, 1, 28, 28] on cpu"]),
        ("shape", ["[4, 1, 28, 28]", "[4, 1, 28, 27]"]),
        ("type", ["uint8", "type ndarray"]),
    ],
)
def test_what_a_plugin_returns_is_checked(digits, where, words):
    generator = load(plugin("Fails", where=where), digits)
    images = torch.tensor(digits.train.images[:4])
    with pytest.raises(StreamError) as caught:
        generator.draw(generator.encode(images, images), np.random.default_rng(0))
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_training_that_fails_is_one_line(digits, tmp_path):
    with pytest.raises(SpecError, match="must train, but it raised OSError: nothing to learn"):
        obtain_artifact(plugin("FailsToTrain"), digits, Store(tmp_path), lambda step: None, CPU)
    assert not (tmp_path / "generator").exists()


def test_commands_draw_in_a_child_process_what_this_process_would(digits):
    spec = plugin("Shade", strongest=9)
    rng = np.random.default_rng(3)
    with open_generator(spec, digits, None, CPU) as generator:
        grid = sample_grid(generator, digits, 1, 3, seed=5)
        images = torch.tensor(digits.train.images[:4])
        codes = generator.encode(images, images)
        drawn = [generator.draw(codes, rng) for _ in range(2)]
        with pytest.raises(StreamError, match="must draw"):
            generator.draw(codes[:, :, 1:], rng)
    here, rng = load(spec, digits), np.random.default_rng(3)
    assert np.array_equal(grid, sample_grid(here, digits, 1, 3, seed=5))
    assert all(torch.equal(draw, here.draw(codes, rng)) for draw in drawn) and not torch.equal(*drawn)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"where": "init"}, ["build", "exit code 0"]),
        ({"where": "encode"}, ["encode", "exit code 0"]),
        ({"where": "draw"}, ["draw", "exit code 0"]),
        ({"where": "init", "reason": "no licence"}, ["build", "SystemExit: no licence", "sample_plugins.py, line"]),
        ({"where": "draw", "reason": "no licence"}, ["draw", "SystemExit: no licence", "sample_plugins.py, line"]),
    ],
)
def test_a_plugin_that_ends_its_process_is_one_line(digits, options, words):
    with pytest.raises(GitdistError) as caught, open_generator(plugin("Ends", **options), digits, None, CPU) as opened:
        sample_grid(opened, digits, 1, 2, seed=0)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in ["Ends", *words]), str(caught.value)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os._exit(0)", ["exit code 0"]),
        ("import sys; sys.exit()", ["SystemExit", "line 1"]),
        ("raise KeyboardInterrupt", ["KeyboardInterrupt"]),
    ],
)
def test_a_module_that_ends_its_process_is_named_and_ends_no_other(tmp_path, monkeypatch, code, words):
    (tmp_path / "leaver.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpecError) as caught:
        needs_training(PluginSpec(target="leaver:generator"))
    assert all(word in str(caught.value) for word in ["generator.target", "leaver:generator", *words]), str(
        caught.value
    )
    assert "leaver" not in sys.modules
