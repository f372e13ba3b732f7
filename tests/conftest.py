import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands import SHARED_RAY
from tests.object_store import ObjectStore
from tests.postgresql import postgresql_server

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else ray.init turns it on for what this process starts later
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that wait for each other slow two busy cores down
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # by a script that runs the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else the processes that tests start ignore it too


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """One Ray of this machine for a test module."""
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def ray_head() -> Iterator[str]:
    """The address of a Ray cluster of one node with two CPUs, for the commands of many tests."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="module")
def shared_ray(ray_head: str) -> Iterator[None]:
    """Commands of a test module join ``ray_head`` instead of starting a Ray of their own."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(SHARED_RAY, ray_head)
        environment.setenv("RAY_ADDRESS", ray_head)
        yield


@pytest.fixture(scope="session")
def empty_store() -> Path:
    """Return an MLflow database without runs; making one takes seconds."""
    from tests.study.small_study import empty_database

    return empty_database()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address (without a database) of a PostgreSQL server of this session's own, on loopback."""
    with postgresql_server() as server:
        yield f"postgresql://{server.user}@127.0.0.1:{server.port}"


@pytest.fixture
def database(postgresql: str) -> Iterator[str]:
    """The address of a new, empty PostgreSQL database."""
    import psycopg

    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(f"{postgresql}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{postgresql}/{name}"
    with psycopg.connect(f"{postgresql}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture
def object_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ObjectStore]:
    """A running S3 server with an empty bucket; this process and its children know of it by their environment."""
    with ObjectStore() as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GITDIST_MIRROR", str(tmp_path / "mirrors"))
        store.make_bucket()
        yield store
