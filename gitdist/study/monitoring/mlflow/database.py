"""MLflow's database: creates a SQLite file atomically, and updates the artifact locations that a database stores.

MLflow stores the artifact locations of experiments and runs as absolute paths. A client creates missing directories,
so after a database was moved or copied with its results directory, writers would use the old path.

    the results directory's own database   locations below a former mlartifacts/ --> below mlartifacts/ here
    a database elsewhere                   those of one study's experiment, see ``store``

gitdist recognizes a former root by locations that it has recorded: that of the default experiment, which is written
with the database, and ROOT/mlartifacts/STUDY of an experiment with runs of that study. All other locations were chosen
by users and are not changed.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import sqlalchemy as sql
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking._tracking_service import utils
from sqlalchemy.pool import NullPool

from gitdist.disk import locked, write_refusal
from gitdist.study.monitoring.mlflow.uri import database_file

_SQLITE_FILES = ("", "-journal", "-wal", "-shm")  # suffixes
_BUSY_S = 60.0  # how long SQLite waits for another writer
_LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("trace_tags", "value"),  # of mlflow.artifactLocation
    ("workspaces", "default_artifact_root"),
)
_DEFAULT_EXPERIMENT = (0, "0")  # its number and the last part of its location
_EXPERIMENTS = sql.text("SELECT experiment_id, artifact_location FROM experiments")
_STUDIES = sql.text(
    "SELECT DISTINCT runs.experiment_id, tags.value FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid "
    "WHERE tags.key = 'gitdist.study'"
)


def ensure_database(file: Path, artifacts: Path) -> None:
    """Create MLflow's tables in a new SQLite file, with its artifact root; only check an existing file."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(_lock_file(file)):
            if not file.exists():  # another process may have created it meanwhile
                draft = file.with_name(f".{file.name}.new")
                for suffix in _SQLITE_FILES:
                    draft.with_name(draft.name + suffix).unlink(missing_ok=True)
                store: Any = SqlAlchemyStore(f"sqlite:///{draft}", str(artifacts))  # type: ignore[no-untyped-call]
                store.engine.dispose()
                with open(draft, "rb") as content:
                    os.fsync(content.fileno())
                os.replace(draft, file)
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=rw", uri=True, timeout=_BUSY_S)) as connection:
        connection.execute("PRAGMA schema_version")


def is_read_only(file: Path) -> bool:
    """Return whether a SQLite file, or the directory of its journal, cannot be written."""
    return write_refusal(file.parent) is not None or not os.access(file, os.W_OK)


def copy_database(file: Path, directory: Path) -> Path:
    """Copy a SQLite file into a directory and return the copy; write nothing next to the original."""
    copy = directory / file.name
    source = f"file:{quote(str(file))}?mode=ro"
    with closing(sqlite3.connect(source, uri=True, timeout=_BUSY_S)) as old, closing(sqlite3.connect(copy)) as new:
        try:
            old.backup(new)
            return copy
        except sqlite3.OperationalError:  # SQLite must write to roll back a killed writer's journal
            new.close()
    for suffix in _SQLITE_FILES:
        part = file.with_name(file.name + suffix)
        if part.exists():
            shutil.copyfile(part, directory / part.name)
    return copy


def local_path(location: str | None) -> Path | None:
    """Return the path of an artifact location on this machine; None for any other location."""
    if location is None:
        return None
    if location.startswith("file:"):
        return Path(unquote(urlsplit(location).path))
    return Path(location) if location.startswith("/") else None


def relocate_artifacts(file: Path, root: Path) -> None:
    """Move the locations of a results directory's own database from below former roots to below ``root``."""
    uri = f"sqlite:///{file}"
    if _former_roots(uri, root):
        with locked(_lock_file(file)):
            for former in _former_roots(uri, root):  # another process may have moved them meanwhile
                _move_locations(uri, former, root)


def move_locations(uri: str, old: Path, new: Path) -> None:
    """Change each location of a database that is ``old`` or below it to ``new``, in one transaction."""
    file = database_file(uri)
    if file is None:
        _move_locations(uri, old, new)
    else:
        with locked(_lock_file(file)):
            _move_locations(uri, old, new)


def _lock_file(file: Path) -> Path:
    """Return the file that is locked while a database is created or its locations are changed."""
    return file.with_name(f".{file.name}.lock")


def _former_roots(uri: str, root: Path) -> set[Path]:
    with _engine(uri) as engine, engine.connect() as connection:
        locations = {number: local_path(location) for number, location in connection.execute(_EXPERIMENTS)}
        moved = {
            number: path
            for number, path in locations.items()
            if path is not None and path.parent.name == root.name and path.parent != root
        }
        if not moved:
            return set()
        recorded = {_DEFAULT_EXPERIMENT, *((number, study) for number, study in connection.execute(_STUDIES))}
    return {path.parent for number, path in moved.items() if (number, path.name) in recorded}


def _move_locations(uri: str, old: Path, new: Path) -> None:
    with _engine(uri) as engine, engine.begin() as connection:
        inspector = sql.inspect(connection)
        for name, column in _LOCATIONS:
            if not inspector.has_table(name) or column not in {info["name"] for info in inspector.get_columns(name)}:
                continue
            table = sql.table(name, sql.column(column, sql.String))
            value = table.c[column]
            for before, after in ((str(old), str(new)), (old.as_uri(), new.as_uri())):
                inside = sql.func.substr(value, 1, len(before) + 1) == f"{before}/"
                rest = sql.func.substr(value, len(before) + 1, type_=sql.String)
                changed = sql.update(table).where(sql.or_(inside, value == before)).values({column: after + rest})
                connection.execute(changed)
    utils._artifact_repos_cache.clear()  # MLflow caches each run's location as long as the process lives


@contextmanager
def _engine(uri: str) -> Iterator[sql.Engine]:
    arguments = {"connect_args": {"timeout": _BUSY_S}} if database_file(uri) else {}
    engine = sql.create_engine(uri, poolclass=NullPool, **arguments)
    try:
        yield engine
    finally:
        engine.dispose()
