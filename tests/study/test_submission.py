import os

import pytest

from gitdist.errors import RayUnavailableError
from gitdist.study.submission import follow_job

pytest.importorskip("aiohttp_cors", reason="the Jobs API comes with ray[default]")
NOBODY, NOBODY_EITHER = "http://127.0.0.1:9", "http://127.0.0.1:7"  # ports at which nothing listens


@pytest.mark.parametrize("name", ["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"])
def test_an_address_that_is_given_goes_before_those_of_the_environment(monkeypatch, name):
    monkeypatch.setenv(name, NOBODY_EITHER)
    with pytest.raises(RayUnavailableError, match=f"answers at '{NOBODY}' .*Ray at address: {NOBODY}"):
        follow_job("study", ["true"], "/results", NOBODY, print)
    assert os.environ[name] == NOBODY_EITHER
    with pytest.raises(RayUnavailableError, match=f"answers at '{NOBODY_EITHER}' .*Ray at address: {NOBODY_EITHER}"):
        follow_job("study", ["true"], "/results", None, print)
