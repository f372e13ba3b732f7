"""Small real data and trials for tests: the digits in their own 8x8 pixels, long-tailed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from gitdist.data.dataset import Dataset, prepare
from gitdist.device import Compute
from gitdist.generator.base import Generator
from gitdist.generator.oracle import OracleGenerator
from gitdist.spec import DataSpec, ProfileSpec, TrialSpec
from gitdist.store import Store
from gitdist.stream.blocks import BlockMaker
from gitdist.stream.draw_stream import DrawStream, LocalBlocks
from gitdist.trial.checkpoint import Checkpoint, load_checkpoint
from gitdist.trial.epoch_row import EpochRow
from gitdist.trial.training import TrialSetting, train

BLOCK_SIZE = 16
# torch's own compiler still uses what torch deprecates.
IMPORTS_INDUCTOR = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
TIMES = ("train_s", "waiting_s", "evaluating_s", "ended_at", "trained_by", "generated")


def write_digits(folder: Path) -> Path:
    """Write the 1,797 real digits as npz files, the last 597 as test images."""
    folder.mkdir(parents=True)
    digits = load_digits()
    images = (digits.images * 15).astype(np.uint8)
    np.savez(folder / "train.npz", images=images[:1200], labels=digits.target[:1200])
    np.savez(folder / "test.npz", images=images[1200:], labels=digits.target[1200:])
    return folder


def small_digits(root: Path, nuisance: str = "background", **profile: Any) -> Dataset:
    spec = DataSpec(
        source="npz",
        path=str(write_digits(root / "digits")),
        nuisance=nuisance,
        profile=ProfileSpec(**profile),
        validation_per_class=10,
    )
    return prepare(spec, Store(root / "store"))


def stream_of(dataset: Dataset, generator: Generator | None = None, kind: type[DrawStream] = DrawStream) -> DrawStream:
    generator = generator or OracleGenerator(dataset.nuisance)
    maker = BlockMaker(generator, dataset.train, seed=0, block_size=BLOCK_SIZE)
    return kind(LocalBlocks(maker), dataset.num_classes, lookahead=1)


def compute(precision: Any = "float32") -> Compute:
    return Compute.resolve(precision, "cpu")


def short_spec(**fields: Any) -> TrialSpec:
    """Return a trial of 4 short epochs that uses everything: switch, soft threshold, crop, flip, lr step."""
    defaults: dict[str, Any] = {
        "epochs": 4,
        "switch_epoch": 1,
        "sampler": "effective-number",
        "effective_beta": 0.99,
        "threshold": 30,
        "threshold_kind": "soft",
        "fraction": 0.5,
        "batch_size": 32,
        "lr": 0.05,
        "lr_warmup_epochs": 2,
        "lr_milestones": (min(3, fields.get("epochs", 3)),),
        "crop_padding": 1,
        "flip": True,
    }
    return TrialSpec(**{**defaults, **fields})


def timeless(rows: list[EpochRow]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.to_json().items() if name not in TIMES} for row in rows]


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def setting_of(
    dataset: Dataset, directory: Path | None = None, precision: Any = "float32", **fields: Any
) -> TrialSetting:
    fields.setdefault("stream", stream_of(dataset))
    return TrialSetting(compute=compute(precision), directory=directory, **fields)


def whole(
    spec: TrialSpec, dataset: Dataset, directory: Path, precision: Any = "float32", **fields: Any
) -> tuple[list[dict[str, Any]], Checkpoint]:
    """Train without interruption; return rows and last checkpoint."""
    rows = list(train(spec, dataset, setting_of(dataset, directory, precision, **fields)))
    checkpoint = load_checkpoint(directory)
    assert checkpoint is not None
    return timeless(rows), checkpoint


def assert_same_state(found: Checkpoint, expected: Checkpoint) -> None:
    """Weights, their average, the optimizer's state and stream cursors are the same bits."""
    averages = [checkpoint.average or {"steps": 0, "classifier": {}} for checkpoint in (found, expected)]
    assert averages[0]["steps"] == averages[1]["steps"]
    assert same_weights(averages[0]["classifier"], averages[1]["classifier"])
    assert same_weights(found.model, expected.model)
    assert found.cursors.tolist() == expected.cursors.tolist()
    assert found.optimizer["param_groups"] == expected.optimizer["param_groups"]
    assert found.optimizer["state"].keys() == expected.optimizer["state"].keys()
    for index, state in found.optimizer["state"].items():
        assert same_weights(state, expected.optimizer["state"][index])
