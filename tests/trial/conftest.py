from collections.abc import Iterator

import pytest
import torch

from gitdist.data.dataset import Dataset
from tests.trial.toys import small_digits


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Bit-identity is promised for one number of threads; the killed processes of these tests have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Real digits with the background nuisance: 60 images of class 0 down to 6 of class 9."""
    return small_digits(tmp_path_factory.mktemp("digits"), kind="exponential", largest=60, factor=0.1)
