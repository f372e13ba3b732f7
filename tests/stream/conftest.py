from pathlib import Path

import pytest

from gitdist.data.dataset import Dataset, prepare
from gitdist.spec import DataSpec, ProfileSpec
from gitdist.store import Store


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Real digits with the background nuisance and a long tail: some classes span several chunks, some part of one."""
    spec = DataSpec(source="digits", nuisance="background", profile=ProfileSpec(kind="exponential", factor=0.05))
    return prepare(spec, Store(tmp_path_factory.mktemp("digits")))


@pytest.fixture(scope="session")
def digits_directory(digits: Dataset) -> Path:
    return digits.directory
