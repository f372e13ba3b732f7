"""``gitdist generator import | preview | quality``."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from gitdist.cli.generator import import_generator, preview_generator
from gitdist.cli.quality import show_quality
from gitdist.errors import StudyError
from gitdist.spec import StudySpec
from gitdist.spec.file import load_plan
from tests.cli.test_errors import assert_refused, gitdist
from tests.generator import published

SHAPES = {"channels": 1, "dim": 4, "depth": 2, "num_res": 1, "mlp_dim": 6, "style_dim": 3}


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=200)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    torch.save({"a": published.random_state(0, **SHAPES), "b": {}}, tmp_path / "gen.pt")
    return tmp_path / "gen.pt"


def study(generator: dict, **data) -> StudySpec:
    profile = {"kind": "exponential", "largest": 20, "factor": 0.5}
    return StudySpec.model_validate(
        {"name": "x", "data": {"nuisance": "background", "profile": profile, **data}, "generator": generator}
    )


def test_an_imported_checkpoint_can_be_previewed(checkpoint, tmp_path, console):
    out = tmp_path / "gen.safetensors"
    import_generator(checkpoint, out, console)
    told = console.file.getvalue()
    assert "dim 4" in told and f"{{kind: pretrained, path: {out}}}" in told
    spec = study({"kind": "pretrained", "path": str(out)})
    preview_generator(spec, tmp_path, console, out=tmp_path / "a.png", images=1, draws=2, truth=False)
    preview_generator(spec, tmp_path, console, out=tmp_path / "b.png", images=1, draws=2, truth=True)
    alone, beside = (np.asarray(Image.open(tmp_path / name)) for name in ("a.png", "b.png"))
    assert np.array_equal(beside[:, : alone.shape[1]], alone)
    assert beside.shape[1] > alone.shape[1]


def test_the_place_that_cannot_be_written_to_is_named(checkpoint, tmp_path, console):
    with pytest.raises(StudyError, match="nowhere/x.safetensors cannot be written .* --out"):
        import_generator(checkpoint, tmp_path / "nowhere" / "x.safetensors", console)


def test_there_is_no_truth_to_show_without_a_nuisance(tmp_path, console):
    spec = study({"kind": "identity"}, nuisance="none")
    with pytest.raises(StudyError, match="--truth .* 'none'; omit it"):
        preview_generator(spec, tmp_path, console, out=tmp_path / "a.png", images=1, draws=2, truth=True)


def test_a_checkpoint_that_is_not_there_is_one_line_and_exit_code_2(tmp_path):
    done = gitdist("generator", "import", tmp_path / "none.pt", "--out", tmp_path / "x.safetensors")
    assert_refused(done, "none.pt", "No such file or directory", "correct the path")


def test_quality_is_told_in_tables_and_json(tmp_path, console):
    labels = np.arange(60) % 2
    images = np.random.default_rng(0).integers(0, 256, (60, 16, 16)).astype(np.uint8) * (np.arange(16) > 7)
    for name in ("train.npz", "test.npz"):
        np.savez(tmp_path / name, images=images.astype(np.uint8), labels=labels, classes=["even [/few]", "odd [all]"])
    spec = study({"kind": "oracle"}, source="npz", path=str(tmp_path))
    show_quality([spec], tmp_path, console, images=3, draws=4, epochs=1, as_json=False)
    told = console.file.getvalue()
    assert all(
        word in told
        for word in ("background level", "true nuisance", "even [/few]", "odd [all]", "6 validation images")
    )
    as_json = Console(file=StringIO())
    show_quality([spec], tmp_path, as_json, images=3, draws=4, epochs=1, as_json=True)
    figures = json.loads(as_json.file.getvalue())
    assert (figures["images"], figures["draws_per_image"], figures["judge"]["epochs"]) == (6, 4, 1)
    assert figures["variation"]["ratio"]["nuisance_std"] == pytest.approx(1, abs=0.6)


def test_the_generators_of_a_campaign_are_measured_each_and_compared(tmp_path, console):
    file = tmp_path / "two.yaml"
    data = {"nuisance": "background", "profile": {"kind": "exponential", "largest": 20, "factor": 0.5}}
    matrix = {"draws": {"none": {"generator.kind": "identity"}, "true": {"generator.kind": "oracle"}}}
    file.write_text(yaml.safe_dump({"name": "two", "data": data, "generator": {}, "matrix": matrix}))
    done = gitdist("generator", "quality", file, "--results", tmp_path, "--images", 2, "--draws", 3, "--epochs", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("two.none") == done.stdout.count("two.true") == 2 and "generators compared" in done.stdout
    specs = [member.spec for member in load_plan(file).members]
    show_quality(specs, tmp_path, console, images=2, draws=3, epochs=1, as_json=True)
    first, second = json.loads(console.file.getvalue())
    assert (first["study"], second["study"]) == ("two.none", "two.true")
    assert first["variation"]["generator"]["pixel_std"] == 0 < second["variation"]["generator"]["pixel_std"]
    assert first["judge"] == second["judge"]
