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

    @property
    def url(self) -> str:
        """The address of its first database."""
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1"
        options += " -c fsync=off -c max_connections=50"
        self.call("pg_ctl", "-w", "-l", str(self.directory / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it as a crash does; it then recovers when it starts."""
        self.call("pg_ctl", "-m", "immediate", "stop")

    def call(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs on its data."""
        command = [str(postgresql_programs()[-1] / program), "-D", str(self.directory / "data"), *arguments]
        user: dict[str, Any] = (
            {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        )
        done = subprocess.run(command, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **user)
        assert done.returncode == 0, done.stderr.decode()


def postgresql_programs() -> list[Path]:
    """The directories of PostgreSQL servers that are installed here, by version."""
    return sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgresql_server(host_auth: str = "trust") -> Iterator[PostgresqlServer]:
    """Run a server; skip the test where none is installed. Over loopback it asks for what ``host_auth`` says."""
    if not postgresql_programs():
        pytest.skip("no PostgreSQL server here: Debian's package postgresql is not installed")
    directory = Path(tempfile.mkdtemp(prefix="gitdist-postgresql-"))
    if os.geteuid() == 0:  # as which the server refuses to run
        shutil.chown(directory, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        server = PostgresqlServer(directory, free.getsockname()[1])
    try:
        auth = ("--auth-local=trust", f"--auth-host={host_auth}")
        server.call("initdb", "-U", server.user, *auth, "--encoding=UTF8", "--no-sync")
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
