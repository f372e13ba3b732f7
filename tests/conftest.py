import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def postgresql_programs() -> list[Path]:
    """The directories of PostgreSQL servers that are installed here, by version."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address (without a database) of a PostgreSQL server of this session's own, on loopback."""
    programs = postgresql_programs()
    if not programs:
        pytest.skip("no PostgreSQL server here: Debian's package postgresql is not installed")
    as_root = os.geteuid() == 0
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if as_root else {}
    directory = Path(tempfile.mkdtemp(prefix="gitdist-postgresql-"))
    if as_root:  # as which the server refuses to run
        shutil.chown(directory, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(program: str, *arguments: str) -> None:
        command = [str(programs[-1] / program), "-D", str(directory / "data"), *arguments]
        done = subprocess.run(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **user)
        assert done.returncode == 0, done.stderr.decode()

    try:
        call("initdb", "-U", "gitdist", "--auth=trust", "--encoding=UTF8", "--no-sync")
        options = f"-p {port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=50"
        call("pg_ctl", "-w", "-l", str(directory / "log"), "-o", options, "start")
        yield f"postgresql://gitdist@127.0.0.1:{port}"
        call("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


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
