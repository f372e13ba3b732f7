"""A study that compares a transformer of timm from scratch with the same one, pretrained, on the command line."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from gitdist.networks import build_classifier
from tests.study.small_study import SmallStudy

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600), pytest.mark.usefixtures("shared_ray")]

VIT, OPTIONS = "timm:test_vit", {"patch_size": 7, "drop_rate": 0.1}
OVERRIDES = (
    "generator={kind: oracle}",
    "trial.network_options={patch_size: 7, drop_rate: 0.1}",
    "trial.lr=0.001",
    "methods={tuned: {network: 'timm:test_vit', pretrained: vit.safetensors}, scratch: {network: 'timm:test_vit'}}",
    "search.algorithm=grid",
    "search.space={}",
)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Weights for RGB images of 7 classes."""
    rng = torch.Generator().manual_seed(3)
    return build_classifier(VIT, (3, 28, 28), 7, options=OPTIONS, rng=rng).state_dict()


def test_scratch_and_pretrained_are_compared_and_a_changed_file_is_refused(tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "vit.safetensors"
    save_file(weights, file)
    begun = SmallStudy(tmp_path / "results", overrides=(*OVERRIDES, "search.total=1"))
    assert begun.run().returncode == 0
    whole = replace(begun, overrides=(*OVERRIDES, "search.total=2"))

    save_file({**weights, "norm.bias": weights["norm.bias"] + 1}, file)
    refused = whole.run()
    assert refused.returncode == 2 and f"of {file}, but they are now" in refused.stderr.replace("\n", " ")
    save_file(weights, file)
    assert whole.run().returncode == 0

    rows, specs = whole.rows(), {}
    for name in ("baseline", "trials/0000", "trials/0001"):
        description = json.loads((whole.directory / name / "trial.json").read_text())
        specs[description["spec"]["network"], description["spec"]["pretrained"]] = rows[name.removeprefix("trials/")]
    assert set(specs) == {("resnet20", False), (VIT, False), (VIT, str(file))}
    assert all(len(trial) == 3 for trial in specs.values())
    assert len({trial[0]["train/loss"] for trial in specs.values()}) == 3
