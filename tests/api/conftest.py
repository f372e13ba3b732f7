import pytest

from gitdist import Dataset, Generator, train_generator

TINY = {"dim": 4, "mlp_dim": 8, "num_res": 1, "discriminator_dim": 4, "discriminator_layers": 2, "batch_size": 4}


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Real digits with backgrounds, 100 to 10 training images per class."""
    profile = {"kind": "exponential", "largest": 100, "factor": 0.1}
    spec = {"source": "digits", "nuisance": "background", "profile": profile}
    return Dataset(spec, results=tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="session")
def munit(digits) -> Generator:
    """A tiny MUNIT after a few steps of training."""
    return train_generator(digits, steps=20, device="cpu", precision="float32", **TINY)
