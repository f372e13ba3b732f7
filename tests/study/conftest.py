import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from gitdist.study.paths import StudyPaths
from tests.study.small_study import SmallStudy, check_whole

optuna.logging.set_verbosity(optuna.logging.ERROR)


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


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> SmallStudy:
    """The small study, run to its end without disturbance; for reading. Its blocks are kept on disk."""
    study = SmallStudy(tmp_path_factory.mktemp("undisturbed"), overrides=("stream.keep=true",))
    done = study.run()
    assert done.returncode == 0, done.stdout + done.stderr
    check_whole(study, 3)
    return study


@pytest.fixture(params=["sqlite", "journal", "postgresql"])
def ledger_line(request: pytest.FixtureRequest) -> str:
    """A study file's ``ledger`` line, for each kind of storage."""
    return str(request.getfixturevalue("database")) if request.param == "postgresql" else request.param


@pytest.fixture
def teams_ledger(request: pytest.FixtureRequest) -> str:
    """The ``ledger`` line of a PostgreSQL server where one is installed, else ``sqlite``."""
    return str(request.getfixturevalue("database")) if postgresql_programs() else "sqlite"


@pytest.fixture
def ledger_paths(tmp_path: Path) -> StudyPaths:
    """The files of a new study named ``study``."""
    paths = StudyPaths(tmp_path, "study")
    paths.create()
    return paths
