from types import SimpleNamespace

import pytest

from gitdist.api.generator import Generator, train_generator
from gitdist.data.dataset import prepare
from gitdist.spec import DataSpec, ProfileSpec
from gitdist.store import Store

TINY = {"dim": 4, "mlp_dim": 8, "num_res": 1, "discriminator_dim": 4, "discriminator_layers": 2, "batch_size": 4}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Real digits with backgrounds, 100 down to 10 images a class, in a store."""
    spec = DataSpec(nuisance="background", profile=ProfileSpec(kind="exponential", largest=100, factor=0.1))
    return SimpleNamespace(spec=spec, prepared=prepare(spec, Store(tmp_path_factory.mktemp("results") / "store")))


@pytest.fixture(scope="session")
def munit(digits) -> Generator:
    """A tiny MUNIT after a few steps of training."""
    return train_generator(digits, steps=20, device="cpu", precision="float32", **TINY)
