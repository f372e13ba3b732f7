import sqlite3

import pytest
from mlflow.tracking import MlflowClient

from gitdist.study.monitoring.mlflow.database import ensure_database
from gitdist.study.monitoring.mlflow.uri import database_file
from tests.processes import forkserver
from tests.waiting import until

PROCESSES = forkserver("gitdist.study.monitoring.mlflow.database")


def in_another_process(place):
    """Start a process that makes the database at ``place``."""
    process = PROCESSES.Process(target=ensure_database, args=(place, place.parent / "artefacts"))
    process.start()
    return process


def size_of(file) -> int:
    """Return a file's bytes; -1 where there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return -1


def test_a_process_killed_while_it_makes_the_database_leaves_none_half_made(tmp_path, empty_store):
    place, draft = tmp_path / "mlflow.db", tmp_path / ".mlflow.db.new"
    for share in (0.0, 0.1, 0.5):
        process = in_another_process(place)
        until(lambda share=share: size_of(draft) >= share * size_of(empty_store), pause_s=0.001)
        process.kill()
        process.join()
        assert not place.exists()
    process = in_another_process(place)
    until(place.exists, pause_s=0.001)
    process.kill()
    process.join()
    assert not draft.exists()
    client = MlflowClient(f"sqlite:///{place}")
    assert client.create_run(client.create_experiment("study")).info.status == "RUNNING"


def test_several_processes_that_start_at_once_share_one_database(tmp_path):
    place = tmp_path / "mlflow.db"
    processes = [in_another_process(place) for _ in range(3)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [file.name for file in sorted(tmp_path.iterdir())] == [".mlflow.db.lock", "mlflow.db"]
    assert len(MlflowClient(f"sqlite:///{place}").search_experiments()) == 1


def test_an_existing_file_is_only_checked(tmp_path):
    place = tmp_path / "mlflow.db"
    place.write_bytes(b"no database" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        ensure_database(place, tmp_path)
    assert place.read_bytes() == b"no database" * 1000


def test_only_a_sqlite_file_is_one(tmp_path):
    assert database_file(f"sqlite:///{tmp_path}/a.db?timeout=5") == tmp_path / "a.db"
    for other in ("sqlite://", "sqlite:///:memory:", "http://host", "postgresql://host/db"):
        assert database_file(other) is None
