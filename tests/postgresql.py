"""A PostgreSQL server of the tests' own."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class PostgresqlServer:
    """Where a server listens: on loopback, and on a socket in its directory, where everybody is trusted."""

    directory: Path
    port: int
    user: str = "gitdist"  # the superuser


def postgresql_programs() -> list[Path]:
    """The directories of PostgreSQL servers that are installed here, by version."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgresql_server(host_auth: str = "trust") -> Iterator[PostgresqlServer]:
    """Run a server; skip the test where none is installed. Over loopback it asks for what ``host_auth`` says."""
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
        server = PostgresqlServer(directory, free.getsockname()[1])

    def call(program: str, *arguments: str) -> None:
        command = [str(programs[-1] / program), "-D", str(directory / "data"), *arguments]
        done = subprocess.run(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **user)
        assert done.returncode == 0, done.stderr.decode()

    try:
        auth = ("--auth-local=trust", f"--auth-host={host_auth}")
        call("initdb", "-U", server.user, *auth, "--encoding=UTF8", "--no-sync")
        options = f"-p {server.port} -k {directory} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=50"
        call("pg_ctl", "-w", "-l", str(directory / "log"), "-o", options, "start")
        yield server
        call("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
