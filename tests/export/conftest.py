from pathlib import Path

import pytest

from gitdist.data.dataset import Dataset
from gitdist.export.model import TrainedModel
from gitdist.spec import TrialSpec
from gitdist.trial.training import train
from tests.trial.toys import setting_of, short_spec, small_digits


@pytest.fixture(scope="package")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A long-tailed data set of real digits, 8x8 pixels."""
    return small_digits(tmp_path_factory.mktemp("digits"), kind="exponential", largest=60, factor=0.2)


@pytest.fixture(scope="package")
def spec() -> TrialSpec:
    return short_spec(epochs=2, fraction=0.0, ema_decay=0.9, loss="ldam", switch_epoch=0)


@pytest.fixture(scope="package")
def directory(digits: Dataset, spec: TrialSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a trained trial, whose EMA is evaluated."""
    directory = tmp_path_factory.mktemp("trial")
    assert len(list(train(spec, digits, setting_of(digits, directory, stream=None)))) == 2
    return directory


@pytest.fixture(scope="package")
def model(digits: Dataset, spec: TrialSpec, directory: Path) -> TrainedModel:
    return TrainedModel.load(spec, digits, directory, study="digits", trial="7")
