from pathlib import Path

import pytest

from gitdist.data.dataset import Dataset, prepare
from gitdist.spec import DataSpec, MunitSpec, ProfileSpec
from gitdist.store import Store


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """A long-tailed digits data set with backgrounds, 100 down to 10 images a class."""
    spec = DataSpec(nuisance="background", profile=ProfileSpec(kind="exponential", largest=100, factor=0.1))
    return prepare(spec, Store(tmp_path_factory.mktemp("store")))


@pytest.fixture
def tiny() -> MunitSpec:
    """The smallest MUNIT that still has every kind of layer."""
    return MunitSpec(
        dim=4,
        mlp_dim=8,
        num_res=1,
        discriminator_dim=4,
        discriminator_layers=2,
        batch_size=4,
        steps=35,
        checkpoint_every=7,
        lr=1e-3,
    )


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """An empty target and an empty scratch directory."""
    (tmp_path / "target").mkdir()
    (tmp_path / "scratch").mkdir()
    return tmp_path / "target", tmp_path / "scratch"
