"""Services that are there and services that are not: a real PostgreSQL, real directories."""

import socket
import time

import pytest

from gitdist.doctor import checks, services
from gitdist.doctor.examination import examine
from gitdist.doctor.machine import file_system_of
from gitdist.doctor.services import check_ledger, check_mlflow, check_store


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(services, "_LIMIT_S", 1.0)


@pytest.fixture
def deaf():
    """The address of a port that takes connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_ledger_on_a_server(database, postgresql):
    assert check_ledger(database).state == "ok"
    import psycopg

    with psycopg.connect(database) as connection:  # nothing was created
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)
    for line in (f"{postgresql}/none", "postgresql://gitdist@127.0.0.1:1/none"):
        found = check_ledger(line)
        assert found.state == "problem" and line in found.seen and "ledger:" in found.remedy


def test_a_server_that_never_answers_is_given_up(impatient, deaf):
    started = time.monotonic()
    for found in (check_ledger(f"postgresql://gitdist@{deaf}/a"), check_mlflow(f"http://{deaf}")):
        assert found.state == "problem" and deaf in found.seen and found.remedy
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("line", ["sqlite", "journal"])
def test_a_ledger_in_a_file_needs_no_server(line):
    assert check_ledger(line).state == "ok"


def test_an_mlflow_server_that_is_not_there():
    """One that is there: tests/study/monitoring/mlflow/test_outage.py, which has started one."""
    found = check_mlflow("http://ann:hunter2@127.0.0.1:1")
    assert found.state == "problem" and "Connection refused" in found.seen and "hunter2" not in found.seen
    assert "tracking.uri" in found.remedy


def test_an_mlflow_database_is_connected_to_and_nothing_is_made(database, postgresql):
    psycopg = pytest.importorskip("psycopg")
    assert check_mlflow(database.replace("postgresql:", "postgresql+psycopg:", 1)).state == "ok"
    with psycopg.connect(database) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert tables == (0,)
    found = check_mlflow("postgresql+psycopg://ann:hunter2@127.0.0.1:1/none")
    assert found.state == "problem" and "127.0.0.1:1/none" in found.seen and "hunter2" not in found.seen


@pytest.mark.parametrize("uri", ["http://localhost:50o0", "http://[localhost", "htp://localhost", "ann@host:5000"])
def test_what_is_no_address_of_mlflow_is_one_line(uri):
    found = check_mlflow(uri)
    assert found.state == "problem" and found.seen.startswith(uri) and "\n" not in found.seen


def test_a_store_without_a_server_is_left_alone(tmp_path):
    assert check_mlflow(f"sqlite:///{tmp_path}/mlflow.db").state == "ok"
    assert not list(tmp_path.iterdir())


def test_mlflow_in_sqlite_on_a_network_disk_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    def states() -> list[str]:
        return [found.state for found in examine(tmp_path, None, ()) if found.check == "MLflow"]

    assert states() == ["ok"]
    monkeypatch.setattr(checks, "NETWORK_DISKS", (file_system_of(tmp_path),))
    assert states() == ["ok", "warning"]


def test_a_shared_store_is_written_and_left_as_it_was(tmp_path):
    found, clean = check_store(str(tmp_path), "doctor.1")
    assert found.state == "ok" and (tmp_path / "doctor.1").exists()
    clean()
    assert not list(tmp_path.iterdir())


def test_results_on_an_object_store_are_named_so():
    found, clean = check_store("nothing://bucket/results", "doctor.1", results=True)
    clean()
    assert (found.check, found.state) == ("results", "problem")
    assert "the URI of the results" in found.seen + found.remedy and "store.uri" not in found.seen + found.remedy


@pytest.mark.parametrize("uri", ["/proc/store", "nothing://bucket/store"])
def test_a_shared_store_that_cannot_be_used(uri):
    found, clean = check_store(uri, "doctor.1")
    clean()
    assert found.state == "problem" and uri in found.seen and "store.uri" in found.seen + found.remedy
