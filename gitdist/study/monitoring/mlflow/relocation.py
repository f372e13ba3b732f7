"""Artifact locations in an MLflow database, kept below the results directory after it was moved or copied.

MLflow stores every artifact location as an absolute path, of experiments and of each run. A client creates a missing
directory, so a database that came with its results directory to another path would lead writers to the old one.

    the results directory's own database    all locations below a former mlartifacts/ --> below mlartifacts/ here
    a database elsewhere                     those of one study's experiment, see ``experiment``

A former root is recognised by what gitdist itself has recorded there: the default experiment's location, which is
written with the database, and ROOT/mlartifacts/STUDY of an experiment with runs of that study. Every other location was
chosen by somebody and is left as it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import sqlalchemy as sql
from mlflow.tracking._tracking_service import utils
from sqlalchemy.pool import NullPool

from gitdist.disk import locked
from gitdist.study.monitoring.mlflow.database import lock_of
from gitdist.study.monitoring.mlflow.uri import database_file

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
_BUSY_S = 60.0  # how long SQLite waits for another writer

_EXPERIMENTS = sql.text("SELECT experiment_id, artifact_location FROM experiments")
_STUDIES = sql.text(
    "SELECT DISTINCT runs.experiment_id, tags.value FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid "
    "WHERE tags.key = 'gitdist.study'"
)


def local_path(location: str | None) -> Path | None:
    """Return the path of an artifact location on this machine; None for any other location."""
    if location is None:
        return None
    if location.startswith("file:"):
        return Path(unquote(urlsplit(location).path))
    return Path(location) if location.startswith("/") else None


def keep_inside(file: Path, root: Path) -> None:
    """Move the locations of a results directory's own database below ``root``, if they are below a former root.

    Args:
        file: the SQLite file.
        root: the results directory's ``StudyPaths.artefacts``.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be read or written.
        OSError: the directory cannot be written.
    """
    uri = f"sqlite:///{file}"
    if _former_roots(uri, root):
        with locked(lock_of(file)):
            for former in _former_roots(uri, root):  # another process may have done it meanwhile
                _move(uri, former, root)


def move_locations(uri: str, old: Path, new: Path) -> None:
    """Change every location of a database that is ``old`` or below it to ``new``, in one transaction.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be read or written.
        OSError: the directory of its SQLite file cannot be written.
    """
    file = database_file(uri)
    if file is None:
        _move(uri, old, new)
    else:
        with locked(lock_of(file)):
            _move(uri, old, new)


def _former_roots(uri: str, root: Path) -> set[Path]:
    with _engine(uri) as engine, engine.connect() as connection:
        found = {number: local_path(location) for number, location in connection.execute(_EXPERIMENTS)}
        moved = {
            number: path
            for number, path in found.items()
            if path is not None and path.parent.name == root.name and path.parent != root
        }
        if not moved:
            return set()
        recorded = {_DEFAULT_EXPERIMENT, *((number, study) for number, study in connection.execute(_STUDIES))}
    return {path.parent for number, path in moved.items() if (number, path.name) in recorded}


def _move(uri: str, old: Path, new: Path) -> None:
    with _engine(uri) as engine, engine.begin() as connection:
        inspector = sql.inspect(connection)
        for name, column in _LOCATIONS:
            if not inspector.has_table(name) or column not in {found["name"] for found in inspector.get_columns(name)}:
                continue
            table = sql.table(name, sql.column(column, sql.String))
            value = table.c[column]
            for before, after in ((str(old), str(new)), (old.as_uri(), new.as_uri())):
                inside = sql.func.substr(value, 1, len(before) + 1) == f"{before}/"
                rest = sql.func.substr(value, len(before) + 1, type_=sql.String)
                changed = sql.update(table).where(sql.or_(inside, value == before)).values({column: after + rest})
                connection.execute(changed)
    utils._artifact_repos_cache.clear()  # MLflow keeps each run's location for the life of the process


@contextmanager
def _engine(uri: str) -> Iterator[sql.Engine]:
    arguments = {"connect_args": {"timeout": _BUSY_S}} if database_file(uri) else {}
    engine = sql.create_engine(uri, poolclass=NullPool, **arguments)
    try:
        yield engine
    finally:
        engine.dispose()
