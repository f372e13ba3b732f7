"""Model files are read by the libraries alone, in a process that cannot import gitdist."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from gitdist.errors import DiskError, SpecError, StoreError
from gitdist.export.files import check_format, model_files, write_model
from gitdist.export.model import ProbabilityModel
from gitdist.networks import build_classifier
from gitdist.networks.heads import LinearHead
from gitdist.trial.checkpoint import fresh_classifier
from tests.disks import small_disk

READERS = {
    ".pt2": """
import json, torch
extra = {"gitdist.json": ""}
program = torch.export.load(file, extra_files=extra).module()
answer = lambda images: program(torch.from_numpy(images)).numpy()
metadata = json.loads(extra["gitdist.json"])
""",
    ".onnx": """
import json, onnxruntime
session = onnxruntime.InferenceSession(file)
answer = lambda images: session.run(["probabilities"], {"images": images})[0]
found = session.get_modelmeta().custom_metadata_map
metadata = {"class_names": json.loads(found["class_names"]), "trial": found["trial"]}
""",
}
READ = """
import sys
file, source, target, *blocked = sys.argv[1:]
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ImportError(name)
sys.meta_path.insert(0, Blocker())
import numpy as np
{reader}
images = np.load(source)
parts = [answer(images[:1]), answer(images[1:4]), answer(images[4:])]
np.savez(target, probabilities=np.concatenate(parts), names=metadata["class_names"], trial=metadata["trial"])
"""
BLOCKED = {".pt2": ["gitdist", "mlflow"], ".onnx": ["gitdist", "mlflow", "torch"]}


def read_elsewhere(file: Path, images: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Return what another process computes with a model file, where some packages cannot be imported."""
    np.save(folder / "images.npy", images)
    program = READ.replace("{reader}", READERS[file.suffix])
    arguments = [str(file), str(folder / "images.npy"), str(folder / "answer.npz"), *BLOCKED[file.suffix]]
    subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", program, *arguments], check=True, cwd=folder)
    return dict(np.load(folder / "answer.npz"))


@pytest.mark.parametrize("suffix", READERS)
def test_a_file_answers_elsewhere_as_the_model_does(model, digits, tmp_path, suffix):
    file = tmp_path / f"model{suffix}"
    write_model(model, file)
    assert list(tmp_path.iterdir()) == [file] == list(model_files(file))
    found = read_elsewhere(file, digits.test.images, tmp_path)
    assert found["probabilities"].dtype == np.float32
    assert np.abs(found["probabilities"] - model.probabilities(digits.test.images)).max() < 1e-5
    assert found["names"].tolist() == list(model.class_names) and found["trial"] == "7"


def test_weights_and_their_description_rebuild_the_network(model, spec, digits, tmp_path):
    file = tmp_path / "model.safetensors"
    write_model(model, file)
    assert sorted(tmp_path.iterdir()) == sorted(model_files(file)) == [tmp_path / "model.json", file]
    description = json.loads((tmp_path / "model.json").read_text())
    assert description["network"] == spec.network and description["head"] == {
        "name": "head",
        "kind": "cosine",
        "scale": 30.0,
    }
    assert description["class_names"] == list(digits.class_names) and description["image_shape"] == [1, 8, 8]
    rebuilt = fresh_classifier(spec, digits)
    rebuilt.load_state_dict(load_file(file))
    again = ProbabilityModel(rebuilt, description["mean"], description["std"])
    images = torch.tensor(digits.test.images)
    assert np.abs(again(images).numpy() - model.probabilities(digits.test.images)).max() < 1e-6
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["class_names"]) == list(digits.class_names)


def test_a_transformer_of_timm_is_exported_with_its_normalisation_and_a_dynamic_batch(model, tmp_path):
    shape, mean, std = (3, 32, 32), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    classifier = build_classifier("timm:test_vit", shape, 10, cosine_scale=30.0)
    module = ProbabilityModel(classifier, mean, std)
    transformer = replace(model, module=module, image_shape=shape, mean=mean, std=std)
    images = np.random.default_rng(0).integers(0, 256, (5, *shape)).astype(np.uint8)
    expected = transformer.probabilities(images)
    for suffix in (".pt2", ".onnx", ".safetensors"):
        write_model(transformer, tmp_path / f"model{suffix}")
    program = torch.export.load(tmp_path / "model.pt2").module()
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    for count in (1, 2, 5):
        found = program(torch.tensor(images[:count])).numpy()
        (converted,) = session.run(None, {"images": images[:count]})
        assert np.abs(found - expected[:count]).max() < 1e-5 and np.abs(converted - expected[:count]).max() < 1e-5
    assert load_file(tmp_path / "model.safetensors").keys() == classifier.state_dict().keys()


class _Tied(torch.nn.Module):
    """Two layers with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64), LinearHead(64, 10)
        self.second.weight = self.first.weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(images.flatten(1))))


def test_weights_that_layers_share_are_written_under_each_of_their_names(model, tmp_path):
    classifier = _Tied()
    write_model(replace(model, module=ProbabilityModel(classifier, model.mean, model.std)), tmp_path / "a.safetensors")
    written = load_file(tmp_path / "a.safetensors")
    assert written.keys() == classifier.state_dict().keys()
    assert torch.equal(written["second.weight"], classifier.first.weight)


@pytest.mark.parametrize("name", ["model", "model.pt", "model.PT2", ".onnx"])
def test_an_unknown_format_is_refused(name):
    with pytest.raises(SpecError, match=r"\.pt2"):
        check_format(Path(name))


def test_a_full_disk_leaves_the_old_file(model, tmp_path):
    with small_disk(tmp_path / "disk", "500k") as disk:
        file = disk / "model.safetensors"
        file.write_bytes(b"old")
        with pytest.raises(DiskError, match=str(file)):
            write_model(model, file)
        assert file.read_bytes() == b"old" and list(disk.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_named(model, tmp_path):
    file = tmp_path / "none" / "model.safetensors"
    with pytest.raises(StoreError, match=str(file)):
        write_model(model, file)


class _Untraceable(torch.nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :2] if images.sum() > 0 else images.flatten(1)[:, 2:4]


def test_a_network_that_cannot_be_traced_is_named(model, tmp_path):
    module = ProbabilityModel(_Untraceable(), model.mean, model.std)
    with pytest.raises(SpecError, match="resnet20"):
        write_model(replace(model, module=module), tmp_path / "model.pt2")
    assert list(tmp_path.iterdir()) == []
