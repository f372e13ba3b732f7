"""Small real material for the tests of this room: the digits in their own 8x8 pixels, long-tailed."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from gitdist.compute import Compute
from gitdist.data.dataset import Dataset, prepare
from gitdist.generator.base import Generator
from gitdist.generator.oracle import OracleGenerator
from gitdist.spec import DataSpec, ProfileSpec, TrialSpec
from gitdist.store import Store
from gitdist.stream.blocks import BlockMaker
from gitdist.stream.draws import DrawStream, LocalBlocks

BLOCK_SIZE = 16
TIMES = ("train_s", "waiting_s", "evaluating_s")


def write_digits(folder: Path) -> Path:
    """Write the 1,797 real digits as npz files, the last 597 as test images."""
    folder.mkdir()
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
    train = dataset.train
    generator = generator or OracleGenerator(dataset.nuisance)
    maker = BlockMaker(generator, train.images, train.clean, train.labels, seed=0, block_size=BLOCK_SIZE)
    return kind(LocalBlocks(maker), dataset.num_classes, BLOCK_SIZE, lookahead=1)


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


def timeless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def same_weights(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
