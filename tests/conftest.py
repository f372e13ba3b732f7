import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """One Ray of this machine for a test module."""
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """Return an MLflow database without runs; making one takes seconds."""
    from gitdist.study.tracking.database import ensure_database

    place = tmp_path_factory.mktemp("mlflow") / "empty.db"
    ensure_database(place, place.parent / "artefacts")
    return place
