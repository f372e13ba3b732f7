import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gitdist.device import Compute
from gitdist.errors import TrialFailedError
from gitdist.generator.munit.networks import WEIGHTS_FILE
from gitdist.generator.munit.training import LOSSES_FILE, train_munit

CPU = Compute.resolve("auto", "cpu")

KILLED_AT_STEP_30 = """
import os, signal, sys, torch
from pathlib import Path
from gitdist.device import Compute
from gitdist.data.dataset import Dataset
from gitdist.generator.munit.training import train_munit
from gitdist.spec import MunitSpec

torch.set_num_threads(int(sys.argv[1]))
def report(row):
    if row.step == 30:
        os.kill(os.getpid(), signal.SIGKILL)
train_munit(MunitSpec.model_validate_json(sys.argv[2]), Dataset.open(Path(sys.argv[3])), Path(sys.argv[4]),
            Path(sys.argv[5]), report, Compute.resolve("auto", "cpu"))
"""


def trained(spec, dataset, root: Path) -> Path:
    target, scratch = root / "target", root / "scratch"
    target.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(exist_ok=True)
    train_munit(spec, dataset, target, scratch, lambda row: None, CPU)
    return target


def assert_same_files(first: Path, second: Path) -> None:
    for name in (WEIGHTS_FILE, LOSSES_FILE):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def killed_training(spec, dataset, folders: tuple[Path, Path]) -> None:
    arguments = [str(torch.get_num_threads()), spec.model_dump_json(), dataset.directory, *folders]
    process = subprocess.run([sys.executable, "-c", KILLED_AT_STEP_30, *map(str, arguments)], env=os.environ)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("change", [{}, {"auto_encoders": "two", "randaugment_ops": 1, "mixup_alpha": 0.4}])
def test_a_training_killed_by_sigkill_ends_with_the_bits_of_an_uninterrupted_one(
    tiny, digits, folders, tmp_path, change
):
    spec = tiny.model_copy(update=change)
    killed_training(spec, digits, folders)
    target, scratch = folders
    assert sorted(path.name[:11] for path in scratch.iterdir()) == ["step-000021", "step-000028"]
    assert not list(target.iterdir())
    steps = []
    train_munit(spec, digits, target, scratch, lambda row: steps.append(row.step), CPU)
    assert steps == [30, 35]
    assert_same_files(target, trained(spec, digits, tmp_path / "uninterrupted"))


def test_a_damaged_newest_checkpoint_falls_back_to_the_previous_one(tiny, digits, folders, tmp_path):
    killed_training(tiny, digits, folders)
    target, scratch = folders
    max(scratch.iterdir()).write_bytes(b"damaged")
    steps = []
    train_munit(tiny, digits, target, scratch, lambda row: steps.append(row.step), CPU)
    assert steps == [30, 35]
    assert_same_files(target, trained(tiny, digits, tmp_path / "uninterrupted"))


def test_losses_are_written_as_rows_and_reported(tiny, digits, folders):
    reported = []
    train_munit(tiny, digits, *folders, reported.append, CPU)
    rows = [json.loads(line) for line in (folders[0] / LOSSES_FILE).read_text().splitlines()]
    assert [row["step"] for row in rows] == [10, 20, 30, 35]
    assert [{"step": row.step, **row.losses} for row in reported] == rows
    assert set(rows[0]) == {"step", "discriminator", "gan", "image", "style", "content"}
    assert {row.total for row in reported} == {35}


def test_training_learns_to_reconstruct(tiny, digits, folders):
    reported = []
    spec = tiny.model_copy(update={"steps": 150, "checkpoint_every": 1000})
    train_munit(spec, digits, *folders, reported.append, CPU)
    assert reported[-1].losses["image"] < 0.6 * reported[0].losses["image"]


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"lr_halved_every": 10},
        {"flip": False},
        {"weight_decay": 0.1},
        {"randaugment_ops": 1},
        {"mixup_alpha": 0.4},
    ],
)
def test_every_setting_of_the_training_has_an_effect(tiny, digits, tmp_path, change):
    first = load_file(trained(tiny, digits, tmp_path / "a") / WEIGHTS_FILE)
    second = load_file(trained(tiny.model_copy(update=change), digits, tmp_path / "b") / WEIGHTS_FILE)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_loss_that_is_not_finite_ends_training_with_its_name_and_step(tiny, digits, folders):
    diverging = tiny.model_copy(update={"lr": 1e30})
    with pytest.raises(
        TrialFailedError, match=r"the (discriminator|gan|image|style|content) loss became (nan|inf) in step"
    ):
        train_munit(diverging, digits, *folders, lambda row: None, CPU)
    assert not list(folders[0].iterdir())
    assert not list(folders[1].iterdir())


def test_a_last_step_that_spoils_the_weights_ends_training_with_the_weights_name(tiny, digits, folders):
    diverging = tiny.model_copy(update={"image_weight": 1e39, "steps": 1})  # the losses of the only step are finite
    with pytest.raises(TrialFailedError, match=r"[a-z_.0-9]+ is not finite after step 1$"):
        train_munit(diverging, digits, *folders, lambda row: None, CPU)
    assert not list(folders[0].iterdir())


def test_training_reads_images_only_not_the_clean_ones(tiny, digits, tmp_path):
    class Blind:
        image_shape = digits.image_shape

        class train:  # noqa: N801
            images, labels = digits.train.images, np.asarray(digits.train.labels)

    assert_same_files(trained(tiny, Blind, tmp_path / "blind"), trained(tiny, digits, tmp_path / "all"))
